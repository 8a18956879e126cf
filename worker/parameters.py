"""A model's parameters as they lie in memory, and which checkpoint tensor fills which part of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch


@dataclass(frozen=True, slots=True)
class Source:
    """One tensor of a checkpoint: all of a parameter, or a part, when several are fused in one."""

    shape: tuple[int, ...]
    parameter: str
    at: tuple[int | slice, ...] = ()  # index of the part; (): all of it


@dataclass(frozen=True, slots=True)
class ParameterPlan:
    """Everything that is loaded. The parts of each parameter cover it exactly."""

    parameters: Mapping[str, tuple[int, ...]]  # shapes
    sources: Mapping[str, Source]  # by name in the checkpoint
    ignored: tuple[str, ...] = ()  # beginnings of names that may be there and are not read
    float32: frozenset[str] = frozenset()  # parameters that keep that dtype

    def dtype_of(self, parameter: str, dtype: torch.dtype) -> torch.dtype:
        return torch.float32 if parameter in self.float32 else dtype

    @property
    def count(self) -> int:
        """Numbers in all parameters."""
        return sum(prod(shape) for shape in self.parameters.values())

    def bytes(self, dtype: torch.dtype) -> int:
        """What the parameters take once loaded."""
        return sum(
            prod(shape) * self.dtype_of(name, dtype).itemsize for name, shape in self.parameters.items()
        )
