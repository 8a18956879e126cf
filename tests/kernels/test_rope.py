"""Rotary embedding against rotation of complex numbers."""

import math

import pytest
import torch

from easel.kernels.rope import RotaryTable, apply_rotary, reference_apply_rotary, rotary_table


@pytest.mark.parametrize(("tokens", "heads", "dim"), [(1, 1, 2), (7, 3, 6), (13, 4, 64), (0, 2, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_apply_rotary_equals_its_reference(tokens: int, heads: int, dim: int, dtype: torch.dtype) -> None:
    x = torch.randn(tokens, heads, dim, generator=torch.Generator().manual_seed(dim)).to(dtype)
    table = rotary_table(64, dim, 1e4, dtype)
    positions = torch.arange(tokens) * 3
    cos, sin = table.cos[positions][:, None], table.sin[positions][:, None]
    found = apply_rotary(x, cos, sin)
    # In bfloat16 two products and a sum are rounded; the reference rounds once.
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found, reference_apply_rotary(x, cos, sin), atol=tolerance, rtol=tolerance)


def test_table_holds_the_angles_of_the_paper_once_for_each_half() -> None:
    table = rotary_table(5, 6, 100.0, torch.float32)
    for position in range(5):
        for i in range(6):
            angle = position * 100.0 ** (-2 * (i % 3) / 6)
            assert float(table.cos[position, i]) == pytest.approx(math.cos(angle), abs=1e-6)
            assert float(table.sin[position, i]) == pytest.approx(math.sin(angle), abs=1e-6)


def test_scores_of_rotated_vectors_depend_on_their_distance_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(16, generator=generator), torch.randn(16, generator=generator)
    table = rotary_table(100, 16, 1e4, torch.float32)
    scores = [float(_at(q, start + 7, table) @ _at(k, start, table)) for start in (0, 1, 40, 92)]
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-4)
    assert abs(scores[0] - float(q @ k)) > 1e-2


def test_angles_are_computed_in_float32_and_rounded_once() -> None:
    wide, narrow = (rotary_table(4096, 8, 1e6, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(wide.cos.bfloat16(), narrow.cos)
    assert torch.equal(wide.sin.bfloat16(), narrow.sin)


def test_angles_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs angles \[tokens, 1, d\]"):
        apply_rotary(torch.zeros(3, 2, 4), torch.zeros(3, 4), torch.zeros(3, 4))


def _at(x: torch.Tensor, position: int, table: RotaryTable) -> torch.Tensor:
    return apply_rotary(x[None, None], table.cos[position][None, None], table.sin[position][None, None])[0, 0]
