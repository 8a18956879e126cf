"""Experts in float8: every path multiplies by the factors that the definition multiplies by."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from easel.kernels.moe import (
    Activation,
    ExpertScales,
    expert_mlp,
    expert_mlp_static,
    reference_expert_mlp,
)
from easel.kernels.moe_scales import dequantised
from easel.kernels.moe_triton import fused_experts
from tests.kernels.moe_inputs import TOLERANCE, Layer, layer_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KINDS = pytest.mark.parametrize("kind", ["rows", "blocks", "rows-of-blocks"])


@KINDS
@pytest.mark.parametrize(
    ("hidden", "size", "dtype"), [(5, 3, torch.float16), (140, 70, torch.bfloat16), (70, 130, torch.float32)]
)
def test_every_path_equals_the_reference(hidden: int, size: int, kind: str, dtype: torch.dtype) -> None:
    given = _in_float8(layer_of(4, hidden, size, 2, 1, dtype), kind)
    expected = reference_expert_mlp(*given.layer.all, Activation.SILU, given.scales)
    tolerance = TOLERANCE[dtype]
    for found in (
        expert_mlp(*given.layer.all, Activation.SILU, given.scales),
        expert_mlp_static(*given.layer.all, Activation.SILU, given.scales),
        _fused(given),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@KINDS
def test_a_factor_reaches_its_own_rows_and_columns_and_no_others(kind: str) -> None:
    """All factors differ, and so do their products with a weight of ones."""
    weight = torch.ones(2, 260, 140).to(torch.float8_e4m3fn)
    scale = _scale(weight, kind)
    found = dequantised(weight, scale, torch.float32)
    for expert, row, column in ((0, 0, 0), (1, 0, 139), (0, 127, 127), (1, 128, 128), (1, 259, 3)):
        at = {"rows": (row,), "blocks": (row // 128, column // 128), "rows-of-blocks": (row, column // 128)}
        assert found[expert, row, column] == scale[(expert, *at[kind])]
    assert len(found.unique()) == scale.numel()


@pytest.mark.parametrize("shape", [(3, 9), (3, 10, 2), (2, 10), (3, 2, 1), (3, 10, 1, 1)])
def test_factors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    layer = layer_of(2, 6, 5, 3, 2, torch.float32)
    scales = ExpertScales(torch.ones(shape), torch.ones(3, 6))
    with pytest.raises(ValueError, match=r"gate_up \(3, 10, 6\) takes float32 factors"):
        expert_mlp(*layer.all, Activation.SILU, scales)


@dataclass(frozen=True, slots=True)
class Given:
    layer: Layer
    scales: ExpertScales


def _in_float8(layer: Layer, kind: str) -> Given:
    gate_up, down = (weight.float().to(torch.float8_e4m3fn) for weight in (layer.gate_up, layer.down))
    scales = ExpertScales(_scale(gate_up, kind), _scale(down, kind))
    return Given(layer.but("gate_up", gate_up).but("down", down), scales)


def _scale(weight: Tensor, kind: str) -> Tensor:
    """Factors from 0.5 to 1.5, no two alike."""
    experts, rows, columns = weight.shape
    groups = -(-columns // 128)
    shapes = {"rows": (rows,), "blocks": (-(-rows // 128), groups), "rows-of-blocks": (rows, groups)}
    shape = (experts, *shapes[kind])
    count = torch.Size(shape).numel()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    return 0.5 + order.view(shape).float() / count


def _fused(given: Given) -> Tensor:
    x, index, weight, gate_up, down = (tensor.to(DEVICE) for tensor in given.layer.all)
    scales = ExpertScales(given.scales.gate_up.to(DEVICE), given.scales.down.to(DEVICE))
    return fused_experts(x, index, weight, gate_up, down, Activation.SILU, scales).cpu()
