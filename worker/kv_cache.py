"""The prefix cache's tensors: keys and values of every page, per layer, allocated once."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVCacheShape:
    """Dimensions of the cache; together with the dtype they give its bytes."""

    layers: int
    pages: int
    page_size: int
    kv_heads: int
    head_dim: int

    def bytes(self, dtype: torch.dtype) -> int:
        per_token = 2 * self.kv_heads * self.head_dim * dtype.itemsize
        return self.layers * self.pages * self.page_size * per_token


@dataclass(frozen=True, slots=True)
class KVCache:
    """Static causal state, shared by requests through their page tables."""

    keys: Tensor  # [layers, pages, page_size, kv_heads, head_dim]
    values: Tensor  # [layers, pages, page_size, kv_heads, head_dim]

    @classmethod
    def allocate(cls, shape: KVCacheShape, dtype: torch.dtype, device: torch.device) -> "KVCache":
        size = (shape.layers, shape.pages, shape.page_size, shape.kv_heads, shape.head_dim)
        return cls(
            torch.zeros(size, dtype=dtype, device=device), torch.zeros(size, dtype=dtype, device=device)
        )

    @property
    def page_size(self) -> int:
        return self.keys.shape[2]

    def write(self, layer: int, index: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [n, kv_heads, head_dim] at page tokens `index` [n] int64."""
        self.keys[layer].flatten(0, 1).index_copy_(0, index, keys)
        self.values[layer].flatten(0, 1).index_copy_(0, index, values)
