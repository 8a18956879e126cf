"""Keys and values, allocated once: of the prefix cache's pages, and of canvases in partial mode."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers whose keys and values have one shape and lie in the same pages."""

    layers: int
    kv_heads: int
    head_dim: int
    window: int | None = None  # tokens a query of these layers sees, itself included; None: all

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype.itemsize


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """Where a layer's keys and values are."""

    group: int
    index: int  # among the group's layers


@dataclass(frozen=True, slots=True)
class KVCache:
    """One store per KV group: `pages * page_size` tokens of the prefix cache, then the canvases'."""

    keys: tuple[Tensor, ...]  # per group [layers, store tokens, kv_heads, head_dim]
    values: tuple[Tensor, ...]  # the same
    page_size: int

    @classmethod
    def allocate(
        cls,
        groups: Sequence[KVGroup],
        tokens: Sequence[int],
        page_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "KVCache":
        """`tokens` are the store tokens of each group."""
        sizes = [
            (group.layers, count, group.kv_heads, group.head_dim)
            for group, count in zip(groups, tokens, strict=True)
        ]
        keys, values = (
            tuple(torch.zeros(size, dtype=dtype, device=device) for size in sizes) for _ in range(2)
        )
        return cls(keys, values, page_size)

    def read(self, place: LayerPlace) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, [store tokens, kv_heads, head_dim] each: views, also to write to."""
        return self.keys[place.group][place.index], self.values[place.group][place.index]
