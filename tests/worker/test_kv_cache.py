"""The store of keys and values: which part of it is a layer's, and what it costs."""

import pytest
import torch

from easel.worker.kv_cache import KVCache, KVGroup, LayerPlace

GROUPS = (
    KVGroup(layers=2, kv_heads=2, head_dim=4),
    KVGroup(layers=3, kv_heads=1, head_dim=6, window=5),
)
CPU = torch.device("cpu")


def test_a_write_goes_to_its_tokens_of_its_layer_and_nowhere_else() -> None:
    cache = KVCache.allocate(GROUPS, (15, 9), 3, torch.float32, CPU)
    keys = torch.randn(3, 1, 6, generator=torch.Generator().manual_seed(0))
    for store, given in zip(cache.read(LayerPlace(1, 2)), (keys, -keys), strict=True):
        store.index_copy_(0, torch.tensor([8, 4, 0]), given)
    expected = torch.zeros(3, 9, 1, 6)
    expected[2, 8], expected[2, 4], expected[2, 0] = keys
    assert torch.equal(cache.keys[1], expected)
    assert torch.equal(cache.values[1], -expected)
    assert not cache.keys[0].any()
    assert torch.equal(cache.read(LayerPlace(1, 2))[0], expected[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_known_before_they_are_allocated(dtype: torch.dtype) -> None:
    cache = KVCache.allocate(GROUPS, (15, 9), 3, dtype, CPU)
    for group, keys, values, tokens in zip(GROUPS, cache.keys, cache.values, (15, 9), strict=True):
        assert group.bytes_per_token(dtype) * tokens == keys.nbytes + values.nbytes
