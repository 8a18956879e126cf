# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""Attention of one canvas in a persistent step: to its prefix where the pages are, and to itself.

Online softmax as in `attention_triton`; the canvas's own keys and values come from the scratch.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attend(slot, layer, pages, tokens_stored, page_count, scratch, sizes):
    """Every query to the prefix and the whole canvas; a tile is some queries of heads that share keys."""
    share: tl.constexpr = sizes.heads // sizes.kv_heads
    width: tl.constexpr = (sizes.heads + 2 * sizes.kv_heads) * sizes.dim
    for group in range(sizes.kv_heads):
        for first in range(0, share * sizes.block, sizes.members):
            member = first + tl.arange(0, sizes.members)
            live = member < share * sizes.block
            row, head = slot * sizes.block + member % sizes.block, group * share + member // sizes.block
            query = _vectors(scratch.heads, row * width + head * sizes.dim, live, sizes)
            state = _start(sizes)
            state = _over_prefix(query, state, slot, layer, group, pages, tokens_stored, page_count, sizes)
            _, total, sums = _over_canvas(query, state, slot, group, scratch.heads, width, sizes)
            dim = tl.arange(0, sizes.dims)
            at = (row * sizes.heads + head)[:, None] * sizes.dim + dim[None, :]
            found = (sums / total[:, None]).to(scratch.mixed.dtype.element_ty)
            tl.store(scratch.mixed + at, found, mask=live[:, None] & (dim < sizes.dim)[None, :])


@triton.jit
def _start(sizes):
    """The state of online softmax before the first key: maximum, total and weighted sum of values."""
    best = tl.full((sizes.members,), float("-inf"), tl.float32)
    return best, tl.zeros((sizes.members,), tl.float32), tl.zeros((sizes.members, sizes.dims), tl.float32)


@triton.jit
def _over_prefix(query, state, slot, layer, group, pages, tokens_stored, page_count, sizes):
    best, total, sums = state
    prefix = tl.load(pages.prefix + slot)
    for first in range(0, prefix, sizes.keys):
        key = first + tl.arange(0, sizes.keys)
        seen = key < prefix
        page = tl.load(pages.table + slot * page_count + key // sizes.page_size, mask=seen, other=0)
        token = page.to(tl.int64) * sizes.page_size + key % sizes.page_size + layer * tokens_stored
        at = (token * sizes.kv_heads + group) * sizes.dim
        keys, values = (
            _vectors(pages.key_store, at, seen, sizes),
            _vectors(pages.value_store, at, seen, sizes),
        )
        best, total, sums = _absorb(query, keys, values, seen, best, total, sums, sizes)
    return best, total, sums


@triton.jit
def _over_canvas(query, state, slot, group, heads, width: tl.constexpr, sizes):
    best, total, sums = state
    for first in range(0, sizes.block, sizes.keys):
        key = first + tl.arange(0, sizes.keys)
        seen = key < sizes.block
        at = (slot * sizes.block + key) * width + (sizes.heads + group) * sizes.dim
        keys = _vectors(heads, at, seen, sizes)
        values = _vectors(heads, at + sizes.kv_heads * sizes.dim, seen, sizes)
        best, total, sums = _absorb(query, keys, values, seen, best, total, sums, sizes)
    return best, total, sums


@triton.jit
def _absorb(query, keys, values, seen, best, total, sums, sizes):
    """One more tile of keys, the first of which is seen (Milakov and Gimelshein, 2018)."""
    scores = _dot(query, tl.trans(keys), sizes) * (LOG2_E / sizes.dim**0.5)
    scores = tl.where(seen[None, :], scores, float("-inf"))
    peak = tl.maximum(best, tl.max(scores, 1))
    kept, weights = tl.exp2(best - peak), tl.exp2(scores - peak[:, None])
    gained = _dot(weights.to(values.dtype), values, sizes)
    return peak, total * kept + tl.sum(weights, 1), sums * kept[:, None] + gained


@triton.jit
def _dot(left, right, sizes):
    if sizes.widen:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _vectors(pointer, at, here, sizes):
    """[offsets, dims]: the head's vectors that begin at `at`; zeros beyond them, and where not `here`."""
    dim = tl.arange(0, sizes.dims)
    mask = here[:, None] & (dim < sizes.dim)[None, :]
    return tl.load(pointer + at[:, None] + dim[None, :], mask=mask, other=0.0)
