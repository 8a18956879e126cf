# pyright: basic, reportArgumentType=false, reportOperatorIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""softmax(s)·E in Triton, a span of the vocabulary at a time, given each row's highest logit.

The definition is `reference_soft_embed`. A span's weights e^(s − highest) are written once, in the dtype of
the embedding, and then multiplied with it: as narrow a table as keeps all of a GPU busy, in place of
[rows, vocabulary]. Rounding is that of `SoftSum`. A span's sums go on from the last one's, without atomics:
how wide spans are changes no bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.logits_triton import block_shape, live, products, require_dense, shaped
from easel.kernels.tiles import Head

SPAN_BYTES = 8 << 20  # of the weights of all rows that are held at a time
LEAST_SPAN = 256  # tokens


def tiled_soft_embed(
    hidden: Tensor,
    head: Head,
    temperature: Tensor,
    highest: Tensor,
    active: Tensor | None,
    out: Tensor,
    span: int | None = None,
) -> None:
    """Write the active rows' expected embeddings to `out` [n, h]; shapes as `soft_embed` has them, all dense.

    Nothing waits for the device. Holds a span's weights, and `out` once more in float32.
    """
    rows, width = hidden.shape
    if not rows:
        return
    require_dense(hidden, head.weight, temperature, highest, active)
    blocks = block_shape(hidden)
    span = span or span_width(rows, hidden.element_size())
    weights = hidden.new_empty(rows, min(span, head.vocabulary))
    sums = torch.zeros(rows, width, dtype=torch.float32, device=hidden.device)
    total = torch.zeros(rows, dtype=torch.float32, device=hidden.device)
    row_blocks = triton.cdiv(rows, blocks["block_rows"])
    how = {**blocks, "enable_fp_fusion": True}
    for first in range(0, head.vocabulary, span):
        end = min(first + span, head.vocabulary)
        _weights[(row_blocks, triton.cdiv(end - first, blocks["block_tokens"]))](
            *(hidden, head.weight, temperature, highest, active, weights, rows, width, first, end),
            *(head.forbidden, weights.stride(0)),
            softcap=head.softcap,
            **how,
        )
        _accumulate[(row_blocks, triton.cdiv(width, blocks["block_tokens"]))](
            *(weights, head.weight, active, sums, total, rows, width, first, end, weights.stride(0)), **how
        )
    mean = sums.div_(total[:, None]).to(out.dtype)
    out.copy_(mean if active is None else torch.where(active[:, None], mean, out))


def span_width(rows: int, itemsize: int) -> int:
    """Tokens whose weights are held at a time: a power of two."""
    fitting = SPAN_BYTES // (rows * itemsize)
    return max(LEAST_SPAN, 1 << (fitting.bit_length() - 1) if fitting else 0)


@triton.jit
def _weights(
    hidden, weight, temperature, highest, active, weights, rows, width, first, end, forbidden, stride,
    softcap: tl.constexpr, block_rows: tl.constexpr, block_tokens: tl.constexpr, block_width: tl.constexpr,
    widen: tl.constexpr,
):  # fmt: skip
    """e^(s − highest) of a block of rows and of tokens [first, end), s rounded to the embedding's dtype."""
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    token = first + tl.program_id(1) * block_tokens + tl.arange(0, block_tokens)
    there = live(active, row, rows)
    if tl.max(there.to(tl.int32), 0) > 0:
        s = products(
            hidden, weight, row, there, token, end, width, block_rows, block_tokens, block_width, widen
        )
        s = shaped(s, temperature, row, there, token, end, forbidden, softcap)
        s = s.to(weights.dtype.element_ty).to(tl.float32)
        top = tl.load(highest + row, mask=there, other=0.0)
        e = tl.where(s == float("-inf"), 0.0, tl.exp(tl.where(s == float("-inf"), 0.0, s - top[:, None])))
        to = row.to(tl.int64)[:, None] * stride + (token - first)[None, :]
        tl.store(weights + to, e.to(weights.dtype.element_ty), mask=there[:, None] & (token < end)[None, :])


@triton.jit
def _accumulate(
    weights, embedding, active, sums, total, rows, width, first, end, stride,
    block_rows: tl.constexpr, block_tokens: tl.constexpr, block_width: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """Add weights·E of tokens [first, end) to a block of rows and of embedding columns."""
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    column = tl.program_id(1) * block_tokens + tl.arange(0, block_tokens)
    there, in_width = live(active, row, rows), column < width
    if tl.max(there.to(tl.int32), 0) > 0:
        to = row.to(tl.int64)[:, None] * width + column[None, :]
        inside = there[:, None] & in_width[None, :]
        part = tl.load(sums + to, mask=inside, other=0.0)
        added = tl.load(total + row, mask=there, other=0.0)
        for start in range(first, end, block_width):
            token = start + tl.arange(0, block_width)
            e = tl.load(
                weights + row.to(tl.int64)[:, None] * stride + (token - first)[None, :],
                mask=there[:, None] & (token < end)[None, :],
                other=0.0,
            )
            w = tl.load(
                embedding + token.to(tl.int64)[:, None] * width + column[None, :],
                mask=(token < end)[:, None] & in_width[None, :],
                other=0.0,
            )
            if widen:
                e, w = e.to(tl.float32), w.to(tl.float32)
            part = tl.dot(e, w, part, input_precision="ieee")
            added += tl.sum(e.to(tl.float32), 1)
        tl.store(sums + to, part, mask=inside)
        if tl.program_id(1) == 0:
            tl.store(total + row, added, mask=there)
