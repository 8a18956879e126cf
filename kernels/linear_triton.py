# pyright: basic, reportArgumentType=false, reportOperatorIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""x·Wᵀ in tiles of one shape, in Triton: what a row comes to does not depend on how many rows there are.

cuBLAS chooses a routine, and whether to split the sum, by the number of rows. Here a program multiplies one
tile of rows with one of columns and sums over the whole depth in one order; how tiles are cut depends on
the weight and its dtype alone.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LinearTile:
    """A tile of rows and of columns, and its launch."""

    rows: int
    columns: int
    depth: int  # what is multiplied and summed at a time
    num_warps: int
    num_stages: int
    widen: bool

    def options(self) -> dict[str, int | bool]:
        return {name: getattr(self, name) for name in self.__slots__} | {"enable_fp_fusion": True}


def tiled_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [n, in] times weight [out, in], plus bias [out]: [n, out] of x's dtype; sums are float32.

    All share one dtype, float32, bfloat16 or float16, and the weight is dense. Raises ValueError otherwise.
    """
    if x.ndim != 2 or x.shape[1] != weight.shape[1] or x.dtype != weight.dtype or not weight.is_contiguous():
        raise ValueError(
            f"tiled_linear: x {tuple(x.shape)} {x.dtype}, weight {tuple(weight.shape)} {weight.dtype} "
            f"with strides {weight.stride()}"
        )
    rows, (columns, depth) = len(x), weight.shape
    out = x.new_empty(rows, columns)
    tile = tile_shape(x)
    if rows:
        _multiply[(triton.cdiv(rows, tile.rows), triton.cdiv(columns, tile.columns))](
            *(x.contiguous(), weight, bias, out, rows), width=columns, inner=depth, **tile.options()
        )
    return out


def tile_shape(x: Tensor) -> LinearTile:
    """The weight is the left operand: a tensor core's tile is at least 64 wide there, and rows are few."""
    if not x.is_cuda:  # the interpreter multiplies the bits of bfloat16 numbers: they are widened
        return LinearTile(rows=16, columns=64, depth=64, num_warps=4, num_stages=1, widen=True)
    if x.dtype == torch.float32:
        return LinearTile(rows=32, columns=64, depth=32, num_warps=4, num_stages=2, widen=False)
    return LinearTile(rows=64, columns=128, depth=64, num_warps=4, num_stages=4, widen=False)


# A launch is compiled once, not again where there is one row or a multiple of 16.
@triton.jit(do_not_specialize=("count",))
def _multiply(
    x, weight, bias, out, count, width: tl.constexpr, inner: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """One tile of rows and of columns."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    there, wanted = row < count, column < width
    total = tl.zeros((columns, rows), tl.float32)
    for start in range(0, inner, depth):
        element = start + tl.arange(0, depth)
        within = element < inner
        left = tl.load(
            weight + column.to(tl.int64)[:, None] * inner + element[None, :],
            mask=wanted[:, None] & within[None, :],
            other=0.0,
        )
        right = tl.load(
            x + row.to(tl.int64)[None, :] * inner + element[:, None],
            mask=there[None, :] & within[:, None],
            other=0.0,
        )
        if widen:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    if bias is not None:
        total += tl.load(bias + column, mask=wanted, other=0.0).to(tl.float32)[:, None]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    found = tl.trans(total).to(out.dtype.element_ty)
    tl.store(out + at, found, mask=there[:, None] & wanted[None, :])
