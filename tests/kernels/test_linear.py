"""One linear layer for plain, float8 and packed weights."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.fp8 import dequantise, fp8_linear, quantise_channels
from easel.kernels.linear import PackedWeight, linear, pack, packed_numbers, packs

DTYPES = [
    pytest.param(dtype, marks=pytest.mark.skipif(not packs(dtype), reason="oneDNN cannot pack it here"))
    for dtype in (torch.float32, torch.bfloat16)
]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("bias", [None, draw(6)])
def test_a_plain_weight_gives_exactly_torchs_product(bias: Tensor | None) -> None:
    x, weight = draw(3, 4, 5), draw(6, 5, seed=1)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


def test_a_float8_weight_gives_its_own_product() -> None:
    x, weight, bias = draw(3, 32), quantise_channels(draw(16, 32, seed=1)), draw(16)
    assert torch.equal(linear(x, weight, bias), fp8_linear(x, weight, bias))
    torch.testing.assert_close(
        linear(x, weight), F.linear(x, dequantise(weight, torch.float32)), atol=0.6, rtol=0.1
    )


@pytest.mark.skipif(not packs(torch.float32), reason="torch was built without oneDNN")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("out", "inner"), [(1, 3), (7, 5), (48, 32), (130, 257), (384, 128)])
def test_a_packed_weight_gives_the_product_but_for_rounding(
    out: int, inner: int, with_bias: bool, dtype: torch.dtype
) -> None:
    weight = draw(out, inner, dtype=dtype, seed=1)
    packed = PackedWeight(pack(weight))
    bias = draw(out, dtype=dtype, seed=2) if with_bias else None
    for rows in (0, 1, 2, 33, 256):
        x = draw(rows, inner, dtype=dtype, seed=rows)
        wide = (x.double(), weight.double(), None if bias is None else bias.double())
        size = x.double().abs() @ weight.double().abs().t() + 1
        off = (linear(x, packed, bias).double() - F.linear(*wide)).abs()
        assert (off <= 4 * torch.finfo(dtype).eps * size).all()


@pytest.mark.skipif(not packs(torch.float32), reason="torch was built without oneDNN")
def test_a_packed_weight_takes_batches_and_strides() -> None:
    weight = draw(8, 6)
    packed = PackedWeight(pack(weight))
    for x in (draw(2, 3, 6), draw(4, 12)[:, ::2], draw(6, 4).t()):
        torch.testing.assert_close(linear(x, packed), F.linear(x, weight))


@pytest.mark.skipif(not packs(torch.float32), reason="torch was built without oneDNN")
@pytest.mark.parametrize(("out", "inner"), [(1, 3), (7, 5), (48, 32), (100, 130), (768, 256), (2112, 704)])
def test_what_packing_takes_is_known_beforehand(out: int, inner: int) -> None:
    packed = PackedWeight(pack(draw(out, inner)))
    assert out * inner * 4 <= packed.nbytes <= packed_numbers(out, inner) * 4
    if out % 64 == 0 == inner % 64:
        assert packed.nbytes == out * inner * 4


def test_dtypes_that_are_never_packed() -> None:
    assert not packs(torch.float64)
