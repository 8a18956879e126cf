# pyright: basic, reportOperatorIssue=false, reportCallIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and strides)
"""Attention of all rows of a forward in one Triton launch, reading pages where they are.

The definition is `reference_canvas_attention` in kernels/attention.py. A program takes a tile of one
row's queries, for all heads that share a key head, and walks over tiles of the keys that they see:
those in the store, then the row's own. Its running maximum and sum are those of online softmax
(Milakov and Gimelshein, 2018, arXiv:1805.02867), in float32.

Tiles are counted from the row's first query and first key, and their sizes depend on the shape of the
heads alone: a row's result does not depend on what else is in the batch. Where a causal row's own keys are
read from the store, those of a query are cut into tiles alike whichever row the query is in.
"""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.attention_layout import ROW_FIELDS, RaggedRows

LOG2_E = 1.4426950408889634
SEARCHED = tl.constexpr(64)  # rows looked at together to find a program's own
UNBOUNDED = tl.constexpr(1 << 30)  # above every index of a key

START, LENGTH, PAGES, SKIP, PREFIX, CANVAS, CANVAS_KEYS, FRESH, CAUSAL, WINDOW = (
    tl.constexpr(index) for index in range(len(ROW_FIELDS))
)
FIELDS = tl.constexpr(len(ROW_FIELDS))


def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_store: Tensor,
    v_store: Tensor,
    rows: RaggedRows,
    scale: float,
    out: Tensor,
) -> None:
    """Write softmax(q·kᵀ·scale)·v of every row to `out`; zeros for a query that sees no key.

    | tensor           | shape                       | memory                                     |
    |------------------|-----------------------------|--------------------------------------------|
    | q, k, v          | [tokens, heads, d]          | each token's heads dense, tokens any apart |
    | k_store, v_store | [store tokens, kv_heads, d] | dense                                      |
    | out              | [tokens, heads, d]          | dense                                      |

    k and v have kv_heads, a divisor of heads. All share one dtype: float32, bfloat16 or float16.
    Raises ValueError for anything else.
    """
    _check({"q": q, "k": k, "v": v, "k_store": k_store, "v_store": v_store, "out": out}, rows.tokens)
    kv_heads, dim = k.shape[1:]
    share = q.shape[1] // kv_heads
    tile = tile_shape(dim, share, q.element_size())
    # Row r's tiles begin at start // queries + r: at least as many as it needs, whatever the lengths.
    tiles = rows.tokens // tile["queries"] + len(rows.table)
    if tiles:
        _attend_tile[(tiles, kv_heads)](
            *(q, k, v, k_store, v_store, out, rows.table, rows.pages),
            *(len(rows.table), scale * LOG2_E, q.stride(0), k.stride(0), v.stride(0)),
            page_size=rows.page_size,
            share=share,
            dim=dim,
            widen=not q.is_cuda,  # the interpreter multiplies the bits of bfloat16 numbers
            enable_fp_fusion=True,  # also what is chosen by default; triton 3.9 warns where it is not said
            **tile,
        )


def tile_shape(dim: int, share: int, itemsize: int) -> dict[str, int]:
    """Sizes of a tile and its launch, for heads of `dim`, `share` of which read the same keys.

    For wide heads the sums fill the registers of 8 warps, and 2 stages what shared memory is left.
    float32 has no tensor cores and twice the bytes: smaller tiles keep its sums in registers.
    """
    wide, narrow = max(16, triton.next_power_of_2(dim)), itemsize < torch.float32.itemsize
    members = max(64 if narrow else 32, triton.next_power_of_2(share))
    return {
        "queries": members // share,
        "members": members,  # a query of one head each
        "block": (64 if wide <= 128 else 32) if narrow else 16,  # keys
        "wide": wide,
        "num_warps": 4 if wide <= (128 if narrow else 64) else 8,
        "num_stages": 3 if wide <= 128 else 2,
    }


def _check(tensors: Mapping[str, Tensor], tokens: int) -> None:
    q, k, v, k_store, v_store, out = tensors.values()
    shapes_agree = (
        q.shape == out.shape
        and k.shape == v.shape
        and k_store.shape == v_store.shape
        and k_store.shape[1:] == k.shape[1:]
        and q.shape[0] == k.shape[0] == tokens
        and q.shape[2] == k.shape[2]
        and q.shape[1] % k.shape[1] == 0
    )
    if not shapes_agree:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(f"ragged_attention: rows of {tokens} tokens, but {shapes}")
    dense = all(tensor.stride()[1:] == (q.shape[2], 1) for tensor in (q, k, v))
    if not dense or not all(tensor.is_contiguous() for tensor in (k_store, v_store, out)):
        strides = {name: tensor.stride() for name, tensor in tensors.items()}
        raise ValueError(f"ragged_attention: see its table for what must be dense; strides are {strides}")
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    if set(dtypes.values()) not in ({torch.float32}, {torch.bfloat16}, {torch.float16}):
        raise ValueError(f"ragged_attention: one of three float dtypes for all, not {dtypes}")


# A launch is compiled once, not again where a batch has one row or a multiple of 16.
@triton.jit(do_not_specialize=("rows",))
def _attend_tile(
    q,
    k,
    v,
    k_store,
    v_store,
    out,
    table,
    tables,
    rows,
    scale,  # of scores that are powers of two
    q_token,  # elements from token to token; k_token, v_token likewise
    k_token,
    v_token,
    page_size: tl.constexpr,
    share: tl.constexpr,
    dim: tl.constexpr,
    queries: tl.constexpr,
    members: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
    widen: tl.constexpr,
):
    """One tile of a row's queries, of the heads that share key head `program_id(1)`."""
    index = _row_of(tl.program_id(0), table, rows, queries)
    row = table + index * FIELDS
    start, length = tl.load(row + START), tl.load(row + LENGTH)
    first = (tl.program_id(0) - start // queries - index) * queries
    if first >= length:
        return
    member, own_head = tl.arange(0, members), tl.program_id(1) * dim
    query, head = first + member // share, tl.program_id(1) * share + member % share
    live = (member < queries * share) & (query < length)
    token, whole = (start + query).to(tl.int64), tl.num_programs(1) * dim
    tile = _vectors(q, token * q_token + head * dim, live, dim, wide)
    oldest, newest = _sight(query, row)
    best, total, sums = _over_store(
        tile, oldest, newest, k_store + own_head, v_store + own_head, whole, row, tables, scale,
        page_size, dim, members, block, wide, widen,
    )  # fmt: skip
    best, total, sums = _over_own(
        tile, oldest, newest, k + own_head, v + own_head, k_token, v_token, row, scale,
        best, total, sums, dim, block, wide, widen,
    )  # fmt: skip
    dims = tl.arange(0, wide)
    at = (token * whole * share + head * dim)[:, None] + dims[None, :]
    result = sums / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=live[:, None] & (dims < dim)[None, :])


@triton.jit
def _row_of(tile, table, rows, queries: tl.constexpr):
    """The last row whose tiles begin at `tile` or before."""
    begun = 0
    for at in range(0, rows, SEARCHED):
        row = at + tl.arange(0, SEARCHED)
        start = tl.load(table + row * FIELDS + START, mask=row < rows, other=0)
        begun += tl.sum(((row < rows) & (start // queries + row <= tile)).to(tl.int32), axis=0)
    return begun - 1


@triton.jit
def _paged(row):
    """Keys of a row that are in pages: see AttentionRow.paged."""
    own = (tl.load(row + CAUSAL) != 0) & (tl.load(row + FRESH) + tl.load(row + CANVAS_KEYS) == 0)
    return tl.load(row + PREFIX) + tl.where(own, tl.load(row + LENGTH), 0)


@triton.jit
def _sight(query, row):
    """The oldest and the newest key that each query may see, were there enough of them."""
    position = tl.load(row + PREFIX) + query
    causal = tl.load(row + CAUSAL) != 0
    oldest = tl.where(causal, position - tl.load(row + WINDOW) + 1, 0)
    return tl.maximum(oldest, 0), tl.where(causal, position, UNBOUNDED)


@triton.jit
def _over_store(
    tile, oldest, newest, k_store, v_store, whole, row, tables, scale,
    page_size: tl.constexpr, dim: tl.constexpr,
    members: tl.constexpr, block: tl.constexpr, wide: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """Attend to the prefix in its pages, then to the canvas; returns the state of online softmax."""
    prefix, skip = _paged(row), tl.load(row + SKIP)
    pages, canvas = tables + tl.load(row + PAGES), tl.load(row + CANVAS)
    end = tl.minimum(prefix + tl.load(row + CANVAS_KEYS), tl.max(newest, axis=0) + 1)
    best = tl.full((members,), float("-inf"), tl.float32)
    total = tl.zeros((members,), tl.float32)
    sums = tl.zeros((members, wide), tl.float32)
    for at in range(tl.min(oldest, axis=0) // block * block, end, block):
        key = at + tl.arange(0, block)
        paged = key < tl.minimum(prefix, end)
        page = tl.load(pages + (skip + key) // page_size, mask=paged, other=0).to(tl.int64)
        token = tl.where(paged, page * page_size + (skip + key) % page_size, canvas + key - prefix)
        keys = _vectors(k_store, token * whole, key < end, dim, wide)
        values = _vectors(v_store, token * whole, key < end, dim, wide)
        seen = _seen(key, end, oldest, newest)
        best, total, sums = _absorb(tile, keys, values, seen, scale, best, total, sums, widen)
    return best, total, sums


@triton.jit
def _over_own(
    tile, oldest, newest, k, v, k_token, v_token, row, scale,
    best, total, sums, dim: tl.constexpr, block: tl.constexpr, wide: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """Attend to the row's fresh keys, if it has any."""
    start, stored = tl.load(row + START), _paged(row) + tl.load(row + CANVAS_KEYS)
    fresh = tl.load(row + LENGTH) * tl.load(row + FRESH)
    end = tl.minimum(fresh, tl.max(newest, axis=0) + 1 - stored)
    begin = tl.maximum(tl.min(oldest, axis=0) - stored, 0)
    for at in range(begin // block * block, end, block):
        key = at + tl.arange(0, block)
        token = (start + key).to(tl.int64)
        keys = _vectors(k, token * k_token, key < end, dim, wide)
        values = _vectors(v, token * v_token, key < end, dim, wide)
        seen = _seen(stored + key, stored + end, oldest, newest)
        best, total, sums = _absorb(tile, keys, values, seen, scale, best, total, sums, widen)
    return best, total, sums


@triton.jit
def _absorb(tile, keys, values, seen, scale, best, total, sums, widen: tl.constexpr):
    """Online softmax over one more tile of keys."""
    scores = _product(tile, tl.trans(keys), widen) * scale
    scores = tl.where(seen, scores, float("-inf"))
    peak = tl.maximum(best, tl.max(scores, axis=1))
    # Where nothing was seen yet the peak is -inf, and -inf - -inf is not a number.
    level = tl.where(peak == float("-inf"), 0.0, peak)
    kept, weights = tl.exp2(best - level), tl.exp2(scores - level[:, None])
    gained = _product(weights.to(values.dtype), values, widen)
    return peak, total * kept + tl.sum(weights, axis=1), sums * kept[:, None] + gained


@triton.jit
def _product(left, right, widen: tl.constexpr):
    """Matrix product, summed in float32; "ieee" keeps float32 from being rounded to tf32 on the way."""
    if widen:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _seen(key, end, oldest, newest):
    """[queries, keys] bool."""
    after, before = key[None, :] >= oldest[:, None], key[None, :] <= newest[:, None]
    return after & before & (key < end)[None, :]


@triton.jit
def _vectors(pointer, at, here, dim: tl.constexpr, wide: tl.constexpr):
    """[offsets, wide]: the vectors of dim elements that begin at `at`; 0 beyond, and where not `here`."""
    dims = tl.arange(0, wide)
    return tl.load(
        pointer + at[:, None] + dims[None, :], mask=here[:, None] & (dims < dim)[None, :], other=0.0
    )
