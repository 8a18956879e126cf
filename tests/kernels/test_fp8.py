"""Float8 weights: rounding, what rounded numbers mean, and products with them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.fp8 import (
    BLOCK,
    FLOAT8,
    Fp8Weight,
    block_shape,
    dequantise,
    fp8_linear,
    multiply_scales,
    quantise_blocks,
    quantise_channels,
    quantise_tokens,
    reference_fp8_linear,
    row_block_shape,
)
from easel.kernels.fp8 import _row_wise_product as row_wise_product
from easel.kernels.moe import Activation, ExpertScales, expert_mlp

SHAPES = [(1, 1), (7, 5), (128, 128), (130, 257), (3, 70, 129), (2, 3, 6, 300)]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers of very different sizes from row to row."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randn(*shape[:-1], 1, generator=generator).mul_(3).exp_()
    return (torch.randn(shape, generator=generator) * size).to(dtype)


def expanded(weight: Fp8Weight) -> Tensor:
    """The scale of each number, float64."""
    rows, columns = torch.arange(weight.shape[-2]), torch.arange(weight.shape[-1])
    if weight.per_channel:
        return weight.scale.double()[..., rows, None].expand(weight.shape)
    return weight.scale.double()[..., rows[:, None] // weight.block_rows, columns // BLOCK]


def by_rows(weight: Fp8Weight) -> Fp8Weight:
    """Blocks of 128 rows as blocks of one row that have the same scales."""
    scale = weight.scale.repeat_interleave(BLOCK, dim=-2)[..., : weight.shape[-2], :]
    return Fp8Weight(weight.data, scale.contiguous())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_number_is_its_float8_times_its_scale_rounded_once(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    weight = draw(*shape)
    for found in (quantise_channels(weight), quantise_blocks(weight), by_rows(quantise_blocks(weight))):
        meant = found.data.double() * expanded(found)
        assert torch.equal(dequantise(found, dtype), meant.float().to(dtype))


@pytest.mark.parametrize("shape", SHAPES)
def test_rounding_moves_a_number_by_a_sixteenth_or_by_little_of_the_largest(shape: tuple[int, ...]) -> None:
    weight = draw(*shape)
    for found in (quantise_channels(weight), quantise_blocks(weight)):
        moved = (dequantise(found, torch.float32) - weight).abs()
        # Below 2^-6 float8's steps are all 2^-9.
        assert (moved <= torch.maximum(weight.abs() / 16, expanded(found) * 2**-10) * 1.00001).all()
        assert found.data.float().abs().amax() == 448


def test_weights_that_are_rounded_are_left_as_they_were() -> None:
    weight = draw(128, 256)
    before = weight.clone()
    quantise_channels(weight)
    quantise_blocks(weight)
    assert torch.equal(weight, before)


def test_zeros_stay_zeros() -> None:
    for quantise in (quantise_channels, quantise_blocks):
        assert torch.equal(dequantise(quantise(torch.zeros(3, 5)), torch.float32), torch.zeros(3, 5))
    assert not quantise_tokens(torch.zeros(2, 5), 4)[0].float().any()


def test_a_view_of_a_larger_tensor_is_scaled_and_nothing_beside_it() -> None:
    whole = torch.ones(4, 300, 200)
    multiply_scales(whole[1, 100:230, :150], torch.full((2, 2), 3.0))
    expected = torch.ones(4, 300, 200)
    expected[1, 100:230, :150] = 3.0
    assert torch.equal(whole, expected)


def test_one_scale_may_be_all_rows() -> None:
    numbers = torch.ones(2, 5, 3)
    multiply_scales(numbers, torch.tensor([[2.0], [3.0]]))
    assert torch.equal(numbers, torch.tensor([2.0, 3.0])[:, None, None].expand(2, 5, 3))


@pytest.mark.parametrize(
    ("data", "scale"),
    [
        (torch.zeros(8, 8), torch.ones(8)),
        (torch.zeros(8, 8, dtype=FLOAT8), torch.ones(8, dtype=torch.bfloat16)),
        (torch.zeros(8, 8, dtype=FLOAT8), torch.ones(7)),
        (torch.zeros(200, 8, dtype=FLOAT8), torch.ones(1, 1)),
        (torch.zeros(8, dtype=FLOAT8), torch.ones(())),
    ],
)
def test_scales_that_do_not_fit_are_refused(data: Tensor, scale: Tensor) -> None:
    with pytest.raises(ValueError, match="Fp8Weight"):
        Fp8Weight(data, scale)


def test_shapes_of_scales() -> None:
    assert block_shape((4, 129, 256)) == (4, 2, 2)
    assert row_block_shape((4, 129, 257)) == (4, 129, 3)


@pytest.mark.parametrize("quantise", [quantise_channels, quantise_blocks])
@pytest.mark.parametrize(("rows", "out", "inner"), [(1, 7, 5), (3, 48, 32), (40, 130, 257), (0, 16, 16)])
def test_the_product_rounds_activations_and_weights_and_nothing_else(
    quantise: type, rows: int, out: int, inner: int
) -> None:
    x, weight, bias = draw(rows, inner, seed=1), quantise(draw(out, inner)), draw(out, 1)[:, 0]
    found = fp8_linear(x, weight, bias)
    data, scale = quantise_tokens(x, BLOCK)
    rounded = data.double() * scale.double().repeat_interleave(BLOCK, dim=1)[:, :inner]
    expected = rounded @ dequantise(weight, torch.float32).double().t() + bias
    size = rounded.abs() @ dequantise(weight, torch.float32).double().abs().t() + bias.abs()
    assert ((found - expected).abs() <= 1e-5 * size).all()


@pytest.mark.parametrize(("rows", "out", "inner"), [(1, 16, 16), (5, 48, 64), (0, 16, 32)])
def test_the_libraries_product_equals_the_definition(rows: int, out: int, inner: int) -> None:
    """With one scale for each token; bfloat16 is what it gives."""
    x, weight = draw(rows, inner, dtype=torch.bfloat16, seed=1), quantise_channels(draw(out, inner))
    found, expected = row_wise_product(x, weight), reference_fp8_linear(x, weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=0, rtol=2**-7)


def test_a_batch_keeps_its_shape() -> None:
    x, weight = draw(2, 3, 32), quantise_channels(draw(16, 32))
    assert torch.equal(fp8_linear(x, weight), fp8_linear(x.view(6, 32), weight).view(2, 3, 16))


def test_a_product_of_widths_that_differ_is_refused() -> None:
    with pytest.raises(ValueError, match="fp8_linear"):
        fp8_linear(torch.zeros(2, 31), quantise_channels(draw(16, 32)))


@pytest.mark.parametrize("quantise", [quantise_channels, quantise_blocks])
def test_an_output_moves_by_a_few_per_cent(quantise: type) -> None:
    """Of normal numbers 1,024 wide: 2.6 % for the weights' rounding, and as much for the activations'."""
    generator = torch.Generator().manual_seed(3)
    x, weight = torch.randn(64, 1024, generator=generator), torch.randn(256, 1024, generator=generator)
    exact, rounded = F.linear(x, weight), quantise(weight)

    def error(found: Tensor) -> float:
        return float((found - exact).norm() / exact.norm())

    assert 0.02 < error(F.linear(x, dequantise(rounded, torch.float32))) < 0.03
    assert 0.03 < error(fp8_linear(x, rounded)) < 0.045


@pytest.mark.parametrize("quantise", [quantise_channels, quantise_blocks])
def test_experts_are_computed_as_what_they_mean(quantise: type) -> None:
    generator = torch.Generator().manual_seed(5)
    gate_up = quantise(torch.randn(4, 96, 160, generator=generator) * 0.1)
    down = quantise(torch.randn(4, 160, 48, generator=generator) * 0.1)
    x = torch.randn(9, 160, generator=generator)
    index = torch.rand(9, 4, generator=generator).topk(2).indices
    share = torch.rand(9, 2, generator=generator)
    scales = ExpertScales(gate_up.scale, down.scale)
    found = expert_mlp(x, index, share, gate_up.data, down.data, Activation.SILU, scales)
    meant = dequantise(gate_up, torch.float32), dequantise(down, torch.float32)
    expected = expert_mlp(x, index, share, *meant, Activation.SILU)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
