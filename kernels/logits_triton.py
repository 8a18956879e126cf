# pyright: basic, reportArgumentType=false, reportOperatorIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""What the kernels of the heads share: products, logits, noise and which rows there are, in Triton."""

import triton
import triton.language as tl
from torch import Tensor, float32

from easel.kernels.gumbel import SERIES_BELOW

SERIES = tl.constexpr(SERIES_BELOW)


def block_shape(hidden: Tensor) -> dict[str, int | bool]:
    """Sizes of a product's blocks and of its launch; small ones where the interpreter runs them."""
    if not hidden.is_cuda:  # the interpreter multiplies the bits of bfloat16 numbers: they are widened
        return {"block_rows": 16, "block_tokens": 64, "block_width": 64, "widen": True}
    narrow = hidden.dtype != float32
    return {
        "block_rows": 64,
        "block_tokens": 128 if narrow else 64,
        "block_width": 64 if narrow else 32,
        "widen": False,
        "num_warps": 8 if narrow else 4,
        "num_stages": 3 if narrow else 2,
    }


def require_dense(*tensors: Tensor | None) -> None:
    """Raise ValueError unless all tensors lie in memory as their shapes say."""
    for tensor in tensors:
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(
                f"the head's kernels take dense tensors; one of shape {tuple(tensor.shape)} has "
                f"strides {tensor.stride()}: call its contiguous()"
            )


@triton.jit
def shaped(s, temperature, row, in_rows, token, vocabulary, forbidden, softcap: tl.constexpr):
    """Logits of products s [rows, tokens]: capped, tempered, −inf where there is no token."""
    if softcap > 0.0:
        # tanh(x) = 1 − 2/(e^2x + 1); beyond 10 it is 1 in float32.
        x = tl.minimum(tl.maximum(s / softcap, -10.0), 10.0)
        s = softcap * (1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0))
    if temperature is not None:
        s = s / tl.load(temperature + row, mask=in_rows, other=1.0)[:, None]
    return tl.where(((token < vocabulary) & (token != forbidden))[None, :], s, float("-inf"))


@triton.jit
def products(
    hidden, weight, row, in_rows, token, vocabulary, width,
    block_rows: tl.constexpr, block_tokens: tl.constexpr, block_width: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """hidden·Wᵀ of some rows and tokens, [rows, tokens] float32."""
    s = tl.zeros((block_rows, block_tokens), tl.float32)
    for start in range(0, width, block_width):
        column = start + tl.arange(0, block_width)
        in_width = column < width
        x = tl.load(
            hidden + row.to(tl.int64)[:, None] * width + column[None, :],
            mask=in_rows[:, None] & in_width[None, :],
            other=0.0,
        )
        w = tl.load(
            weight + token.to(tl.int64)[None, :] * width + column[:, None],
            mask=(token < vocabulary)[None, :] & in_width[:, None],
            other=0.0,
        )
        if widen:
            x, w = x.to(tl.float32), w.to(tl.float32)
        s = tl.dot(x, w, s, input_precision="ieee")
    return s


@triton.jit
def live(active, row, rows):
    """Which rows there are, and active."""
    there = row < rows
    if active is not None:
        there = there & (tl.load(active + row, mask=there, other=0) != 0)
    return there


@triton.jit
def gumbel(keys, row, in_rows, first, block_rows: tl.constexpr, block_tokens: tl.constexpr):
    """Noise of tokens from `first`, [rows, tokens] float32; the numbers of `gumbel.token_noise`."""
    key = tl.load(keys + row, mask=in_rows, other=0)[:, None]
    quad = (first // 4 + tl.arange(0, block_tokens // 4)).to(tl.uint32)[None, :]
    quad = quad + tl.zeros((block_rows, 1), tl.uint32)
    zero = tl.zeros((block_rows, block_tokens // 4), tl.uint32)
    a, b, c, d = tl.philox(key, quad, zero, zero, zero)
    word = tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
    u = (word.to(tl.float32) + 0.5) * (1.0 / 4294967296.0)
    series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0)))
    # u may round to 1, whose noise is −∞; that of the largest number below 1 is as good.
    rest = tl.maximum(1.0 - u, 1.0 / 16777216.0)
    return -tl.log(tl.where(u < SERIES, series, -tl.log(rest)))
