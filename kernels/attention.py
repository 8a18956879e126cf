"""Attention of ragged rows over a key store and their own fresh keys.

The store holds keys and values token by token: the prefix cache's pages, and behind them the
canvases' own. Every row attends to a run of stored tokens and, unless they are in the store
already, to its own fresh ones: to all of them (a block that is committed, prefilled or
denoised) or causally. Keys that other rows of the same forward write are in the store before
attention runs, so a canvas can open on a block that is committed in the same forward.

On a GPU one Triton kernel reads the pages where they are. Elsewhere a row's keys are copied next
to each other and attended densely; why that is faster there is in docs/performance.md.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.attention_layout import (
    CAUSAL_TILE,
    GROUP_KEYS,
    AttentionLayout,
    AttentionRow,
    RowGroup,
    attention_layout,
)
from easel.kernels.row_tiles import ROW_TILE

__all__ = [
    "CAUSAL_TILE",
    "GROUP_KEYS",
    "AttentionLayout",
    "AttentionRow",
    "RowGroup",
    "attention_layout",
    "canvas_attention",
    "reference_canvas_attention",
]


def canvas_attention(
    q: Tensor, k: Tensor, v: Tensor, k_store: Tensor, v_store: Tensor, layout: AttentionLayout, scale: float
) -> Tensor:
    """Softmax(q·kᵀ·scale)·v over stored and own keys.

    q [tokens, heads, d]; k, v [tokens, kv_heads, d], the rows' fresh keys and values;
    k_store, v_store [store tokens, kv_heads, d]. Returns [tokens, heads, d].
    """
    if q.shape[1] % k.shape[1] or k.shape != v.shape:
        raise ValueError(f"canvas_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
    out = q.new_empty(q.shape)
    if layout.ragged is not None:
        # Imported here: triton is only where there is a GPU.
        from easel.kernels.attention_triton import ragged_attention  # noqa: PLC0415

        ragged_attention(q, k, v, k_store, v_store, layout.ragged, scale, out)
        return out
    for group in layout.groups:
        end = group.start + group.rows * group.length
        span = slice(group.start, end)
        _attend(group, q[span], (k[span], v[span]), (k_store, v_store), scale, out[span])
    return out


def reference_canvas_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_store: Tensor,
    v_store: Tensor,
    rows: Sequence[AttentionRow],
    page_size: int,
    scale: float,
) -> Tensor:
    """The definition, a row and a head at a time, in float64."""
    out = torch.empty_like(q)
    share = q.shape[1] // k.shape[1]
    start = 0
    for row in rows:
        span = slice(start, start + row.length)
        kept = _stored_tokens(row, page_size)
        for head in range(q.shape[1]):
            keys, values = (
                torch.cat((store[kept, head // share], new[span, head // share][: row.length * row.fresh]))
                for store, new in ((k_store, k), (v_store, v))
            )
            scores = q[span, head].double() @ keys.double().T * scale
            if row.causal:
                ahead = torch.arange(len(keys)) - row.prefix - torch.arange(row.length)[:, None]
                hidden = (ahead > 0) | (ahead <= -(row.window or len(keys) + 1))
                scores = scores.masked_fill(hidden, float("-inf"))
            out[span, head] = (scores.softmax(-1) @ values.double()).to(q.dtype)
        start = span.stop
    return out


def _stored_tokens(row: AttentionRow, page_size: int) -> list[int]:
    within = [page * page_size + offset for page in row.pages for offset in range(page_size)]
    first, count = row.canvas
    return [*within[row.skip : row.skip + row.paged], *range(first, first + count)]


def _attend(
    group: RowGroup,
    q: Tensor,
    fresh: tuple[Tensor, Tensor],
    stores: tuple[Tensor, Tensor],
    scale: float,
    out: Tensor,
) -> None:
    heads, dim = q.shape[1:]
    kv_heads = fresh[0].shape[1]
    share = heads // kv_heads
    # Heads that share keys become extra queries, so keys are never repeated in memory.
    queries = q.view(group.rows, group.length, kv_heads, share, dim).permute(0, 2, 3, 1, 4)
    queries = queries.reshape(group.rows, kv_heads, share * group.length, dim)
    keys, values = (_keys(group, new, old) for new, old in zip(fresh, stores, strict=True))
    mask = group.mask
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, share, 1)
    found = (_fixed if group.fixed else _dense)(queries, keys, values, mask, scale)
    found = found.view(group.rows, kv_heads, share, group.length, dim).permute(0, 3, 1, 2, 4)
    out.view(group.rows, group.length, kv_heads, share, dim).copy_(found)


def _dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def _fixed(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same with whole tiles of queries, so that a query's result depends on its row alone.

    q [rows, kv_heads, queries, d]. In dtypes narrower than float32 a call takes one row, since torch may
    lay keys out anew for many; and it takes two if there is one head, whose product threads would cut.
    """
    rows, heads, count, _ = q.shape
    missing = -count % ROW_TILE
    if missing:
        q = F.pad(q, (0, 0, 0, missing))
        mask = mask if mask is None or mask.shape[2] == 1 else F.pad(mask, (0, 0, 0, missing), value=True)
    if rows > 1 and q.dtype != torch.float32:
        found = torch.empty_like(q[:, :, :count])
        for one in range(rows):
            own = slice(one, one + 1)
            of_row = None if mask is None else mask[own]
            found[own] = _fixed(q[own], k[own], v[own], of_row, scale)[:, :, :count]
        return found
    if rows * heads == 1 and torch.get_num_threads() > 1:
        q, k, v = (tensor.expand(2, -1, -1, -1) for tensor in (q, k, v))
        mask = None if mask is None else mask.expand(2, -1, -1, -1)
    return _dense(q, k, v, mask, scale)[:rows, :, :count]


def _keys(group: RowGroup, fresh: Tensor, store: Tensor) -> Tensor:
    """[rows, kv_heads, keys of a row, d]: the stored keys of the rows, then their own.

    The gather leaves room for the own keys: joining two tensors would copy everything again.
    """
    own = fresh.view(group.rows, group.length, *fresh.shape[1:])
    if group.runs:
        parts = [store[run] for run in group.runs] + [fresh] * group.fresh
        found = (torch.cat(parts) if len(parts) > 1 else parts[0])[None]
    elif group.keys is None:
        found = own
    else:
        found = store.index_select(0, group.keys).view(group.rows, -1, *fresh.shape[1:])
        if group.fresh:
            found[:, -group.length :] = own
    return found.transpose(1, 2)
