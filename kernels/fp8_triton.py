# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""The product of float8 numbers with a scale for every 128 of them, on a GPU or in Triton's interpreter.

As in DeepSeek-V3 (2024, section 3.3.2): the tensor cores add up 128 products, in fewer bits than
float32 has, and each such sum is multiplied by its scales and added to the others in float32. A
token's result does not depend on the other tokens: groups are added in order, and their width is fixed.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.fp8 import BLOCK, FLOAT8, LARGEST, Fp8Weight

_GROUP = tl.constexpr(BLOCK)


def quantise_groups(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """`quantise_tokens` in one launch: x [n, in] to float8 [n, in] and float32 [n, ceil(in / group)]."""
    rows, columns = x.shape
    groups = -(-columns // group)
    data = torch.empty(x.shape, dtype=FLOAT8, device=x.device)
    scale = torch.empty(rows, groups, dtype=torch.float32, device=x.device)
    if rows:
        width = triton.next_power_of_2(group)
        warps = min(max(width // 256, 1), 8)
        _quantise_group[rows, groups](
            x.contiguous(), data, scale, columns, LARGEST, group, width, num_warps=warps
        )
    return data, scale


def group_product(x: Tensor, weight: Fp8Weight) -> Tensor:
    """x [n, in] times the weight [out, in]: [n, out] of x's dtype. x is rounded in groups of 128."""
    out = torch.empty(len(x), weight.shape[0], dtype=x.dtype, device=x.device)
    if len(x):
        multiply_groups(*quantise_groups(x, BLOCK), weight, out)
    return out


def multiply_groups(data: Tensor, scale: Tensor, weight: Fp8Weight, out: Tensor) -> None:
    """data [n, in] float8 and scale [n, ceil(in / 128)] of activations, times the weight, to out [n, out]."""
    rows, inner = data.shape
    tile = tile_shape(rows)
    grid = (triton.cdiv(rows, tile["tile_rows"]), triton.cdiv(out.shape[1], tile["tile_columns"]))
    _multiply_tile[grid](
        data,
        scale,
        weight.data,
        weight.scale,
        out,
        rows,
        out.shape[1],
        inner,
        triton.cdiv(inner, BLOCK),
        per_channel=weight.per_channel,
        block_rows=weight.block_rows,
        **tile,
    )


def tile_shape(rows: int) -> dict[str, int]:
    """Few tokens are a matter of bandwidth: a thin tile, many in flight. Tiles share a weight's block."""
    if rows <= 32:
        return {"tile_rows": 16, "tile_columns": 64, "num_warps": 4, "num_stages": 4}
    return {"tile_rows": 64, "tile_columns": 128, "num_warps": 4, "num_stages": 4}


@triton.jit
def _quantise_group(x, data, scale, columns, largest, group: tl.constexpr, width: tl.constexpr):
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane = tl.arange(0, width)
    at = part * group + lane
    seen = (lane < group) & (at < columns)
    numbers = tl.load(x + row * columns + at, mask=seen, other=0.0).to(tl.float32)
    highest = tl.max(tl.abs(numbers), axis=0)
    factor = tl.where(highest > 0, highest / largest, 1.0)
    tl.store(data + row * columns + at, (numbers / factor).to(tl.float8e4nv), mask=seen)
    tl.store(scale + row * tl.num_programs(1) + part, factor)


@triton.jit
def _multiply_tile(
    data,
    scale,
    weight,
    weight_scale,
    out,
    rows,
    columns,
    inner,
    groups,
    per_channel: tl.constexpr,
    block_rows: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
):
    row = (tl.program_id(0) * tile_rows + tl.arange(0, tile_rows)).to(tl.int64)
    column = (tl.program_id(1) * tile_columns + tl.arange(0, tile_columns)).to(tl.int64)
    row_seen, column_seen = row < rows, column < columns
    lane = tl.arange(0, _GROUP)
    total = tl.zeros((tile_rows, tile_columns), tl.float32)
    for group in range(groups):
        at = group * _GROUP + lane
        seen = (at < inner)[None, :]
        left = tl.load(data + row[:, None] * inner + at[None, :], mask=row_seen[:, None] & seen, other=0.0)
        right = tl.load(
            weight + column[:, None] * inner + at[None, :], mask=column_seen[:, None] & seen, other=0.0
        )
        product = tl.dot(left, tl.trans(right))
        product *= tl.load(scale + row * groups + group, mask=row_seen, other=0.0)[:, None]
        if not per_channel:
            block = weight_scale + (column // block_rows) * groups + group
            product *= tl.load(block, mask=column_seen, other=0.0)[None, :]
        total += product
    if per_channel:
        total *= tl.load(weight_scale + column, mask=column_seen, other=0.0)[None, :]
    found = total.to(out.dtype.element_ty)
    tl.store(
        out + row[:, None] * columns + column[None, :], found, mask=row_seen[:, None] & column_seen[None, :]
    )
