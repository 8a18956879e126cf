# pyright: basic, reportArgumentType=false, reportOperatorIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""Products of rows that are sorted by expert with their experts' weights, in Triton.

A launch is as wide as the number of pairs and of experts implies; which expert a tile belongs to is found
on the device. Tiles are counted from an expert's first row and their sizes depend on dtypes alone, so a
row's result does not depend on what else is in the batch.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.moe import Activation
from easel.kernels.moe_routes import Routes
from easel.kernels.moe_scales import BLOCK

BLOCK_COLUMNS = tl.constexpr(BLOCK)


def write_inner(
    x: Tensor, routes: Routes, gate_up: Tensor, scale: Tensor | None, activation: Activation, out: Tensor
) -> None:
    """Write activation(gate)·up of each pair to out [n·k, I], by place. x [n, h], gate_up [E, 2I, h]."""
    pairs, size = out.shape
    if not pairs:
        return
    tile = tile_shape(x, gate_up, halves=2)
    _inner[tile.grid(pairs, len(gate_up), size)](
        *(x, gate_up, scale, routes.pair, routes.ends, out),
        hidden=x.shape[1],
        size=size,
        chosen=pairs // len(x),
        gelu=activation is Activation.GELU_TANH,
        **scale_shape(gate_up, scale),
        **sizes_of(gate_up),
        **tile.options(),
    )


def write_products(inner: Tensor, routes: Routes, down: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """Write down·inner of each pair to out [n·k, h], by place. inner [n·k, I], down [E, h, I]."""
    pairs, hidden = out.shape
    if not pairs:
        return
    tile = tile_shape(inner, down, halves=1)
    _products[tile.grid(pairs, len(down), hidden)](
        *(inner, down, scale, routes.ends, out),
        hidden=hidden,
        size=inner.shape[1],
        **scale_shape(down, scale),
        **sizes_of(down),
        **tile.options(),
    )


@dataclass(frozen=True, slots=True)
class TileShape:
    """A tile of rows and of their products' columns, and its launch."""

    rows: int  # pairs of one expert
    columns: int  # of the product; of gate and of up each
    depth: int  # what is multiplied and summed at a time
    num_warps: int
    num_stages: int
    widen: bool

    def grid(self, pairs: int, experts: int, columns: int) -> tuple[int, int]:
        """Expert e's tiles begin at begin_e // rows + e: at least as many as it needs, whatever it has."""
        return pairs // self.rows + experts, triton.cdiv(columns, self.columns)

    def options(self) -> dict[str, int | bool]:
        named = {name: getattr(self, name) for name in self.__slots__}
        return named | {"enable_fp_fusion": True}


def tile_shape(x: Tensor, weight: Tensor, halves: int) -> TileShape:
    """How the product of x and an expert's weight is cut; `halves` of its columns are kept at a time.

    With about 16 tokens an expert the weights' bytes are what takes time: a tile of 64 rows mostly reads
    an expert's weights once. The weight is the left operand, whose side a tensor core's tile is at
    least 64 wide on: float8 goes from registers into the product. float32 has no tensor cores.
    """
    if not x.is_cuda:  # the interpreter multiplies the bits of bfloat16 numbers: they are widened
        return TileShape(rows=16, columns=64, depth=64, num_warps=4, num_stages=1, widen=True)
    if x.dtype == torch.float32:
        return TileShape(rows=16, columns=64 // halves, depth=32, num_warps=4, num_stages=2, widen=False)
    # Half the bytes leave half the time to multiply rows that are not there.
    rows, depth = (32, 128) if weight.element_size() == 1 else (64, 64)
    return TileShape(rows, columns=128 // halves, depth=depth, num_warps=4, num_stages=4, widen=False)


def scale_shape(weight: Tensor, scale: Tensor | None) -> dict[str, int]:
    """Of the table of factors of a weight [E, rows, columns]: rows of a block, blocks beside each other."""
    if scale is None:
        return {"block_rows": 0, "groups": 0}
    if scale.ndim == 2:
        return {"block_rows": 1, "groups": 0}
    return {"block_rows": 1 if scale.shape[1] == weight.shape[1] else BLOCK, "groups": scale.shape[2]}


def sizes_of(weight: Tensor) -> dict[str, int]:
    return {"experts": len(weight), "padded": triton.next_power_of_2(len(weight))}


@triton.jit
def _rows_of(ends, experts: tl.constexpr, padded: tl.constexpr, rows: tl.constexpr):
    """The expert of this program's tile, the place of its first row and where the expert's places end."""
    number = tl.arange(0, padded)
    here = number < experts
    begin = tl.load(ends + number - 1, mask=here & (number > 0), other=0)
    expert = tl.sum((here & (begin // rows + number <= tl.program_id(0))).to(tl.int32), 0) - 1
    begin = tl.sum(tl.where(number == expert, begin, 0), 0)
    return expert, begin + (tl.program_id(0) - begin // rows - expert) * rows, tl.load(ends + expert)


@triton.jit
def _inner(
    x, weight, scale, pair, ends, out,
    hidden: tl.constexpr, size: tl.constexpr, chosen: tl.constexpr, gelu: tl.constexpr,
    block_rows: tl.constexpr, groups: tl.constexpr, experts: tl.constexpr, padded: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """activation(gate)·up of one tile of an expert's rows and of inner columns."""
    expert, first, end = _rows_of(ends, experts, padded, rows)
    if first >= end:
        return
    place = first + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    token = tl.load(pair + place, mask=place < end, other=0) // chosen
    gate = tl.zeros((columns, rows), tl.float32)
    up = tl.zeros((columns, rows), tl.float32)
    for start in range(0, hidden, depth):
        given = _given(x, token, place < end, start, hidden, depth, widen)
        gate = _added(
            gate, given, weight, scale, expert, column, column < size, start,
            hidden, 2 * size, block_rows, groups, depth,
        )  # fmt: skip
        up = _added(
            up, given, weight, scale, expert, size + column, column < size, start,
            hidden, 2 * size, block_rows, groups, depth,
        )  # fmt: skip
    gate = _scaled(gate, scale, expert, column, column < size, 2 * size, block_rows, groups)
    up = _scaled(up, scale, expert, size + column, column < size, 2 * size, block_rows, groups)
    result = tl.trans(activated(gate, gelu) * up)
    at = place.to(tl.int64)[:, None] * size + column[None, :]
    tl.store(
        out + at, result.to(out.dtype.element_ty), mask=(place < end)[:, None] & (column < size)[None, :]
    )


@triton.jit
def _products(
    inner, weight, scale, ends, out,
    hidden: tl.constexpr, size: tl.constexpr,
    block_rows: tl.constexpr, groups: tl.constexpr, experts: tl.constexpr, padded: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """One tile of an expert's rows and of hidden columns."""
    expert, first, end = _rows_of(ends, experts, padded, rows)
    if first >= end:
        return
    place = first + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.zeros((columns, rows), tl.float32)
    for start in range(0, size, depth):
        given = _given(inner, place, place < end, start, size, depth, widen)
        total = _added(
            total, given, weight, scale, expert, column, column < hidden, start,
            size, hidden, block_rows, groups, depth,
        )  # fmt: skip
    result = tl.trans(_scaled(total, scale, expert, column, column < hidden, hidden, block_rows, groups))
    at = place.to(tl.int64)[:, None] * hidden + column[None, :]
    tl.store(
        out + at, result.to(out.dtype.element_ty), mask=(place < end)[:, None] & (column < hidden)[None, :]
    )


@triton.jit
def _given(x, row, here, start, width: tl.constexpr, depth: tl.constexpr, widen: tl.constexpr):
    """[depth, rows]: some elements of rows of x [., width]."""
    element = start + tl.arange(0, depth)
    found = tl.load(
        x + row.to(tl.int64)[None, :] * width + element[:, None],
        mask=here[None, :] & (element < width)[:, None],
        other=0.0,
    )
    return found.to(tl.float32) if widen else found


@triton.jit
def _added(
    total, given, weight, scale, expert, row, here, start,
    width: tl.constexpr, height: tl.constexpr, block_rows: tl.constexpr, groups: tl.constexpr,
    depth: tl.constexpr,
):  # fmt: skip
    """total + weight·given, over `depth` elements of some of an expert's `height` rows of `width`."""
    element = start + tl.arange(0, depth)
    base = weight + expert.to(tl.int64) * height * width
    found = tl.load(
        base + row[:, None] * width + element[None, :],
        mask=here[:, None] & (element < width)[None, :],
        other=0.0,
    ).to(given.dtype)
    if groups:
        product = tl.dot(found, given, input_precision="ieee")
        factor = _factor(scale, expert, row, here, start // BLOCK_COLUMNS, height, block_rows, groups)
        return total + product * factor[:, None]
    return tl.dot(found, given, total, input_precision="ieee")


@triton.jit
def _scaled(
    total, scale, expert, row, here, height: tl.constexpr, block_rows: tl.constexpr, groups: tl.constexpr
):
    """total [rows, .], times each row's factor where there is one."""
    if block_rows and not groups:
        return total * _factor(scale, expert, row, here, 0, height, block_rows, 1)[:, None]
    return total


@triton.jit
def _factor(
    scale, expert, row, here, group, height: tl.constexpr, block_rows: tl.constexpr, groups: tl.constexpr
):
    blocks = (height + block_rows - 1) // block_rows
    return tl.load(scale + (expert * blocks + row // block_rows) * groups + group, mask=here, other=0.0)


@triton.jit
def activated(gate, gelu: tl.constexpr):
    """gate·sigmoid(gate), or GELU by tanh, which is gate·sigmoid(2u): 1 + tanh(u) = 2·sigmoid(2u)."""
    at = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate) if gelu else gate
    return gate / (1.0 + tl.exp(tl.minimum(-at, 80.0)))  # e^80 is finite, and its inverse as good as 0
