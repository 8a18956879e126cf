"""Pages: where a write goes, and what they cost."""

import pytest
import torch

from easel.worker.kv_cache import KVCache, KVCacheShape

SHAPE = KVCacheShape(layers=2, pages=5, page_size=3, kv_heads=2, head_dim=4)
CPU = torch.device("cpu")


def test_a_write_goes_to_its_page_tokens_of_its_layer_and_nowhere_else() -> None:
    cache = KVCache.allocate(SHAPE, torch.float32, CPU)
    keys = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    cache.write(1, torch.tensor([12, 4, 14]), keys, -keys)
    expected = torch.zeros(2, 5, 3, 2, 4)
    expected[1, 4, 0], expected[1, 1, 1], expected[1, 4, 2] = keys
    assert torch.equal(cache.keys, expected)
    assert torch.equal(cache.values, -expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_known_before_they_are_allocated(dtype: torch.dtype) -> None:
    cache = KVCache.allocate(SHAPE, dtype, CPU)
    assert SHAPE.bytes(dtype) == cache.keys.nbytes + cache.values.nbytes
    assert cache.page_size == 3
