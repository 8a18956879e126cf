"""A linear layer, whatever form its weight has."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.fp8 import Fp8Weight, fp8_linear
from easel.kernels.row_tiles import ROW_TILE, whole_tiles

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


@dataclass(frozen=True, slots=True, eq=False)
class TiledWeight:
    """A matrix that a GPU multiplies in tiles of one shape, whatever the number of rows."""

    data: Tensor  # [out, in]

    @property
    def shape(self) -> torch.Size:
        return self.data.shape

    @property
    def nbytes(self) -> int:
        return self.data.nbytes


Weight = Tensor | Fp8Weight | PackedWeight | TiledWeight


def linear(x: Tensor, weight: Weight, bias: Tensor | None = None) -> Tensor:
    """x [..., in] times the weight [out, in], plus bias [out]; [..., out] of x's dtype.

    On a CPU rows are multiplied in whole tiles, see row_tiles.py.
    """
    if isinstance(weight, Fp8Weight):
        return fp8_linear(x, weight, bias)
    if isinstance(weight, TiledWeight) and x.is_cuda:
        # Imported here: triton is only where there is a GPU.
        from easel.kernels.linear_triton import tiled_linear  # noqa: PLC0415

        return tiled_linear(x.flatten(0, -2), weight.data, bias).view(*x.shape[:-1], weight.shape[0])
    if not x.is_cpu or x.numel() // max(x.shape[-1], 1) % ROW_TILE == 0:
        return _product(x, weight, bias)
    flat = x.flatten(0, -2)
    found = _product(whole_tiles(flat), weight, bias)[: len(flat)]
    return found.view(*x.shape[:-1], weight.shape[0])


def _product(x: Tensor, weight: Tensor | PackedWeight | TiledWeight, bias: Tensor | None) -> Tensor:
    if isinstance(weight, PackedWeight):
        return torch.ops.mkldnn._linear_pointwise(x, weight.packed, bias, "none", [], "")  # noqa: SLF001
    return F.linear(x, weight.data if isinstance(weight, TiledWeight) else weight, bias)


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
