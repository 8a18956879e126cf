"""A model's parameters as they lie in memory, and which checkpoint tensor fills which part of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod

import torch
from torch import Tensor

from easel.kernels.fp8 import FLOAT8, Fp8Weight
from easel.kernels.linear import PackedWeight, TiledWeight, Weight, packed_numbers
from easel.kernels.moe_scales import ExpertScales

# What most of a forward's time goes into. Head, embedding and routers keep their dtype whatever a matrix's.
_MATRICES = frozenset(
    ("qkv", "out", "gate_up", "down", "shared_gate_up", "shared_down", "expert_gate_up", "expert_down")
)


class Fill(Enum):
    """What is done with a tensor of the checkpoint on its way into a parameter."""

    COPY = "copied"
    SPREAD = "scales of blocks of 128 rows, copied for each of their rows"
    SCALE = "multiplied with the numbers that are there: the scales of float8 numbers kept in another dtype"
    QUANTISE = "rounded to float8 with a scale for each channel; kept so, or as the numbers that are meant"


@dataclass(frozen=True, slots=True)
class Source:
    """One tensor of a checkpoint: all of a parameter, or a part, when several are fused in one."""

    shape: tuple[int, ...]
    parameter: str
    at: tuple[int | slice, ...] = ()  # index of the part; (): all of it
    fill: Fill = Fill.COPY
    float8: bool = False  # whether the checkpoint has it in that dtype
    is_scale: bool = False  # then the checkpoint may have more or fewer dimensions of 1


@dataclass(frozen=True, slots=True)
class ParameterPlan:
    """Everything that is loaded. The parts of each parameter cover it exactly."""

    parameters: Mapping[str, tuple[int, ...]]  # shapes
    sources: Mapping[str, Source]  # by name in the checkpoint
    ignored: tuple[str, ...] = ()  # beginnings of names that may be there and are not read
    float32: frozenset[str] = frozenset()  # parameters that keep that dtype
    matrices: frozenset[str] = frozenset()  # parameters that may be quantised or packed
    float8: frozenset[str] = frozenset()  # matrices kept in that dtype, with a parameter of scales each
    packed: frozenset[str] = frozenset()  # matrices that are packed once they are loaded

    def dtype_of(self, parameter: str, dtype: torch.dtype) -> torch.dtype:
        if parameter in self.float8:
            return FLOAT8
        return torch.float32 if parameter in self.float32 else dtype

    @property
    def count(self) -> int:
        """Numbers in all parameters."""
        return sum(prod(shape) for shape in self.parameters.values())

    def bytes(self, dtype: torch.dtype) -> int:
        """What the parameters take once loaded; packed ones at most."""
        return sum(self._numbers(name) * self.dtype_of(name, dtype).itemsize for name in self.parameters)

    def _numbers(self, parameter: str) -> int:
        shape = self.parameters[parameter]
        return packed_numbers(*shape) if parameter in self.packed else prod(shape)


def matrices_among(parameters: Iterable[str]) -> frozenset[str]:
    """Those that tokens are multiplied with: projections, MLPs and experts."""
    return frozenset(name for name in parameters if name.rpartition(".")[2] in _MATRICES)


def scale_of(parameter: str) -> str:
    """The parameter that holds the scales of one that is kept in float8."""
    return f"{parameter}.scale"


def expert_scales_of(parameters: Mapping[str, Tensor], prefix: str) -> ExpertScales | None:
    """Of a layer's experts where they are kept in float8; both their matrices are, or neither."""
    gate_up, down = (parameters.get(scale_of(f"{prefix}expert_{name}")) for name in ("gate_up", "down"))
    return None if gate_up is None or down is None else ExpertScales(gate_up, down)


def weight_of(parameters: Mapping[str, Tensor], name: str, *, tiled: bool = False) -> Weight:
    """A matrix in the form that it was loaded in; `tiled` pins the shape of its product's tiles on a GPU."""
    numbers, scale = parameters[name], parameters.get(scale_of(name))
    if scale is not None:
        return Fp8Weight(numbers, scale)
    if numbers.is_mkldnn:
        return PackedWeight(numbers)
    return TiledWeight(numbers) if tiled and numbers.is_cuda else numbers
