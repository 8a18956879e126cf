"""A linear layer, whatever form its weight has."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.fp8 import Fp8Weight, fp8_linear

_PACKED_TO = 64  # rows and columns that oneDNN's layouts may be filled up to


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """A matrix in the order in which oneDNN's product reads it; CPU only."""

    packed: Tensor  # [out, in]  float32 or bfloat16, in oneDNN's own layout

    @property
    def shape(self) -> torch.Size:
        return self.packed.shape

    @property
    def nbytes(self) -> int:
        return torch.ops.mkldnn._nbytes(self.packed)  # noqa: SLF001 there is no public one


Weight = Tensor | Fp8Weight | PackedWeight


def linear(x: Tensor, weight: Weight, bias: Tensor | None = None) -> Tensor:
    """x [..., in] times the weight [out, in], plus bias [out]; [..., out] of x's dtype."""
    if isinstance(weight, Tensor):
        return F.linear(x, weight, bias)
    if isinstance(weight, Fp8Weight):
        return fp8_linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight.packed, bias, "none", [], "")  # noqa: SLF001


def pack(weight: Tensor) -> Tensor:
    """A copy of a CPU's matrix [out, in] in oneDNN's layout, for a `PackedWeight`.

    The layout serves any number of tokens. Raises RuntimeError for a dtype that oneDNN does not
    multiply on this machine.
    """
    return torch.ops.mkldnn._reorder_linear_weight(weight)  # noqa: SLF001


def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN packs matrices of that dtype on this machine."""
    if not torch.backends.mkldnn.is_available() or dtype not in {torch.float32, torch.bfloat16}:
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001


def packed_numbers(rows: int, columns: int) -> int:
    """How many numbers a packed matrix [rows, columns] takes the room of, at most."""
    return (rows + -rows % _PACKED_TO) * (columns + -columns % _PACKED_TO)
