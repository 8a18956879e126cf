"""RMS normalisation against its definition."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.norm import add_norms, reference_rms_norm, rms_norm
from easel.kernels.norm_triton import fused_add_norms, fused_rms_norm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in Triton's interpreter
NAN = float("nan")


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (3, 2, 33), (0, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_equals_its_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(len(shape))
    x = (torch.randn(shape, generator=generator) * 3).to(dtype)
    weight = torch.randn(shape[-1], generator=generator).to(dtype)
    found = rms_norm(x, weight, 1e-6)
    assert found.shape == x.shape
    torch.testing.assert_close(found, reference_rms_norm(x, weight, 1e-6))


def test_the_reference_has_unit_root_mean_square_before_the_weight() -> None:
    x = torch.randn(11, 65, generator=torch.Generator().manual_seed(1), dtype=torch.float32) * 40
    scaled = reference_rms_norm(x, torch.ones(65), 0.0)
    torch.testing.assert_close(scaled.square().mean(-1), torch.ones(11))
    torch.testing.assert_close(scaled * x.square().mean(-1, keepdim=True).sqrt(), x)


def test_statistics_of_bfloat16_are_taken_in_float32() -> None:
    """The sum of many equal squares would stall in bfloat16, whose integers end at 256."""
    x = torch.full((1, 4096), 0.5, dtype=torch.bfloat16)
    weight = torch.ones(4096, dtype=torch.bfloat16)
    assert rms_norm(x, weight, 0.0).unique().tolist() == [1.0]


def test_eps_keeps_a_zero_vector_at_zero() -> None:
    assert rms_norm(torch.zeros(2, 9), torch.ones(9), 1e-6).count_nonzero() == 0


def test_a_weight_of_another_length_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(2, 9\), weight \(8,\)"):
        rms_norm(torch.zeros(2, 9), torch.ones(8), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_head_may_have_a_weight_of_its_own(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(7, 3, 10, generator=generator).to(dtype)
    weight = torch.randn(3, 10, generator=generator).to(dtype)
    heads = [rms_norm(x[:, head].contiguous(), weight[head], 1e-6) for head in range(3)]
    torch.testing.assert_close(rms_norm(x, weight, 1e-6), torch.stack(heads, dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_weight_vectors_are_only_scaled(dtype: torch.dtype) -> None:
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(6)).to(dtype)
    torch.testing.assert_close(rms_norm(x, None, 1e-6), rms_norm(x, torch.ones(12, dtype=dtype), 1e-6))
    torch.testing.assert_close(rms_norm(x, None, 1e-6), reference_rms_norm(x, None, 1e-6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_that_is_rounded_once_is_torchs(dtype: torch.dtype) -> None:
    x, weight = (torch.randn(9, 33, generator=torch.Generator().manual_seed(7)) * 3).to(dtype).split((8, 1))
    found = rms_norm(x, weight[0], 1e-6, round_once=True)
    assert torch.equal(found, F.rms_norm(x, (33,), weight[0], 1e-6))


def test_rounding_twice_is_not_rounding_once() -> None:
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(8)).bfloat16()
    weight = torch.full((64,), 1.37, dtype=torch.bfloat16)
    assert not torch.equal(rms_norm(x, weight, 1e-6), rms_norm(x, weight, 1e-6, round_once=True))


@pytest.mark.parametrize("fused", [False, True], ids=["torch", "triton"])
@pytest.mark.parametrize("round_once", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("rows", "width", "norms", "weighed"),
    [(0, 4, 1, False), (1, 1, 1, True), (7, 33, 3, True), (5, 130, 1, False)],
)
def test_a_residual_sum_and_its_norms_equal_the_reference(
    rows: int, width: int, norms: int, weighed: bool, dtype: torch.dtype, round_once: bool, fused: bool
) -> None:
    draw = torch.Generator().manual_seed(width)
    tensors = [torch.randn(count, width, generator=draw) for count in (rows, rows, norms, 1)]
    x, added, weights, of_added = (tensor.to(DEVICE, dtype) for tensor in tensors)
    factor = of_added[0] if weighed else None
    poisoned = torch.full((rows + 2, width), NAN), torch.full((norms + 2, rows, width), NAN)
    room = [tensor.to(DEVICE, dtype) for tensor in poisoned]
    if fused:
        total, normed = fused_add_norms(
            x,
            added,
            weights,
            1e-6,
            added_weight=factor,
            round_once=round_once,
            out=(room[0][1:-1], room[1][1:-1]),
        )
        assert room[0][[0, -1]].isnan().all()
        assert room[1][[0, -1]].isnan().all()
    else:
        total, normed = add_norms(x, added, weights, 1e-6, added_weight=factor, round_once=round_once)
    expected = _sum(x, added, factor, round_once=round_once)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    torch.testing.assert_close(total, expected, atol=tolerance, rtol=tolerance)
    for found, weight in zip(normed, weights, strict=True):
        of_sum = reference_rms_norm(total, weight, 1e-6, round_once=round_once)
        torch.testing.assert_close(found, of_sum, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("round_once", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("weighed", [False, True])
def test_a_norm_in_one_launch_equals_the_reference(
    weighed: bool, dtype: torch.dtype, round_once: bool
) -> None:
    draw = torch.Generator().manual_seed(2)
    x = (torch.randn(5, 3, 33, generator=draw) * 3).to(DEVICE, dtype)
    weight = torch.randn(33, generator=draw).to(DEVICE, dtype) if weighed else None
    room = torch.full((7, 3, 33), NAN, device=DEVICE, dtype=dtype)
    fused_rms_norm(x, weight, 1e-6, round_once=round_once, out=room[1:-1])
    expected = reference_rms_norm(x, weight, 1e-6, round_once=round_once)
    torch.testing.assert_close(room[1:-1], expected)
    assert room[[0, -1]].isnan().all()


def test_a_sum_of_rows_of_other_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\), \(2, 4\), \(1, 3\)"):
        add_norms(torch.ones(2, 4), torch.ones(2, 4), torch.ones(1, 3), 1e-6)


def test_the_kernel_of_sums_takes_dense_tensors_of_one_dtype() -> None:
    x = torch.ones(2, 4)
    for added in (x.double(), torch.ones(4, 2).T):
        with pytest.raises(ValueError, match="dense tensors of one dtype"):
            fused_add_norms(x, added, torch.ones(1, 4), 1e-6)


def _sum(x: Tensor, added: Tensor, weight: Tensor | None, *, round_once: bool) -> Tensor:
    return x + (added if weight is None else reference_rms_norm(added, weight, 1e-6, round_once=round_once))
