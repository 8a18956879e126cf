# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""The numbers of kernels/noise.py in Triton, bit for bit."""

import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 256  # that a program draws


def fused_uniform(
    seed: Tensor, block: Tensor, step: Tensor, position: Tensor, draw: int, out: Tensor
) -> None:
    """Write `noise.uniform` to `out`, float64, in one launch.

    Tensors are of one shape, of up to two dimensions, `out` dense, the others of any strides. Raises
    ValueError for others.
    """
    places = (seed, block, step, position)
    if out.ndim > 2 or any(place.shape != out.shape for place in places) or not out.is_contiguous():
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (*places, out))
        raise ValueError(f"uniform writes up to two dimensions, dense, on a GPU; the shapes are {shapes}")
    strides = [stride for place in places for stride in (0, 0, *place.stride())[-2:]]
    if out.numel():
        _uniform[(triton.cdiv(out.numel(), NUMBERS),)](
            *(*places, out, out.numel(), out.shape[-1] if out.ndim else 1, *strides),
            draw=draw,
            numbers=NUMBERS,
            enable_fp_fusion=True,  # also what is chosen by default; triton 3.9 warns where it is not said
        )


@triton.jit
def uniform_numbers(seed, block, step, position, draw):
    """One number a position, float64 in (0, 1); seed, block and step are numbers, or shaped as `position`."""
    zero = (position * 0).to(tl.uint32)
    words = tl.philox(
        seed,
        zero + block.to(tl.uint32),
        zero + step.to(tl.uint32),
        zero + position.to(tl.uint32),
        zero + draw,
    )
    return (words[0].to(tl.float64) + 0.5) * (1.0 / 4294967296.0)


@triton.jit(do_not_specialize=("count", "width", "draw"))
def _uniform(
    seed, block, step, position, out, count, width,
    seed_row, seed_column, block_row, block_column, step_row, step_column, position_row, position_column,
    draw, numbers: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * numbers + tl.arange(0, numbers)
    there, row, column = index < count, (index // width).to(tl.int64), (index % width).to(tl.int64)
    found = uniform_numbers(
        tl.load(seed + row * seed_row + column * seed_column, mask=there, other=0),
        tl.load(block + row * block_row + column * block_column, mask=there, other=0),
        tl.load(step + row * step_row + column * step_column, mask=there, other=0),
        tl.load(position + row * position_row + column * position_column, mask=there, other=0),
        draw,
    )
    tl.store(out + index, found, mask=there)
