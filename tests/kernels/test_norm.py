"""RMS normalisation against its definition."""

import pytest
import torch

from easel.kernels.norm import reference_rms_norm, rms_norm


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
