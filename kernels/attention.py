"""Attention of ragged rows over a key store and their own fresh keys.

The store holds keys and values token by token: the prefix cache's pages, and behind them the
canvases' own. Every row attends to a run of stored tokens and, unless they are in the store
already, to its own fresh ones: to all of them (a block that is committed, prefilled or
denoised) or causally. Keys that other rows of the same forward write are in the store before
attention runs, so a canvas can open on a block that is committed in the same forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GROUP_KEYS = 1 << 16  # keys gathered in one dense call, unless a single row has more


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Neighbouring rows of one length and similar numbers of keys, attended in one dense call."""

    start: int  # first token, in the ragged batch
    rows: int
    length: int  # queries of each row
    keys: Tensor | None  # [rows * keys of a row]  int64  store token of each key; None: own keys only
    mask: Tensor | None  # [rows, 1, 1 or length, keys of a row]  bool  None: all visible
    fresh: bool  # the last `length` keys of a row are its own


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """Who sees what in one forward; built once, used by every layer of one KV group."""

    groups: tuple[RowGroup, ...]


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """One row: `length` queries that see `prefix` stored tokens, then a canvas's, then their own.

    The prefix lies in `pages` from token `skip` on. A causal row's queries follow the prefix one
    by one; with a `window` each sees that many tokens, itself included.
    """

    pages: tuple[int, ...]
    prefix: int
    length: int
    causal: bool = False
    window: int | None = None  # of a causal row
    skip: int = 0  # tokens of the first pages that come before the prefix
    canvas: tuple[int, int] = (0, 0)  # first store token and number of a canvas's stored keys
    fresh: bool = True  # whether the row's own keys come with the forward, not from the store


def attention_layout(rows: Sequence[AttentionRow], page_size: int, device: torch.device) -> AttentionLayout:
    """Group neighbouring rows that agree in all but a prefix that pads to the same size.

    Sort rows by prefix first: padding is then below a factor of two.
    """
    groups: list[RowGroup] = []
    start = first = 0
    for index, row in enumerate(rows):
        members = index + 1 - first
        last = index + 1 == len(rows)
        if last or _shape(rows[index + 1], page_size) != _shape(row, page_size) or _full(row, members):
            groups.append(_row_group(rows[first : index + 1], start, page_size, device))
            start += members * row.length
            first = index + 1
    return AttentionLayout(tuple(groups))


def canvas_attention(
    q: Tensor, k: Tensor, v: Tensor, k_store: Tensor, v_store: Tensor, layout: AttentionLayout, scale: float
) -> Tensor:
    """Softmax(q·kᵀ·scale)·v over stored and own keys.

    q [tokens, heads, d]; k, v [tokens, kv_heads, d], the rows' fresh keys and values;
    k_store, v_store [store tokens, kv_heads, d]. Returns [tokens, heads, d].
    """
    if q.shape[1] % k.shape[1] or k.shape != v.shape:
        raise ValueError(f"canvas_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
    out = torch.empty_like(q)
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
    return [*within[row.skip : row.skip + row.prefix], *range(first, first + count)]


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
    found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    found = found.view(group.rows, kv_heads, share, group.length, dim).permute(0, 3, 1, 2, 4)
    out.view(group.rows, group.length, kv_heads, share, dim).copy_(found)


def _keys(group: RowGroup, fresh: Tensor, store: Tensor) -> Tensor:
    """[rows, kv_heads, keys of a row, d]: the gathered store tokens, then the rows' own.

    The gather leaves room for the own keys: joining two tensors would copy everything again.
    """
    own = fresh.view(group.rows, group.length, *fresh.shape[1:])
    if group.keys is None:
        return own.transpose(1, 2)
    gathered = store.index_select(0, group.keys).view(group.rows, -1, *fresh.shape[1:])
    if group.fresh:
        gathered[:, -group.length :] = own
    return gathered.transpose(1, 2)


def _shape(row: AttentionRow, page_size: int) -> tuple[int, int, bool, int | None, int, bool]:
    padded = _padded_prefix(row.prefix, page_size)
    return row.length, padded, row.causal, row.window, row.canvas[1], row.fresh


def _full(row: AttentionRow, members: int) -> bool:
    """Whether one more row like this would gather too many keys; padding less than doubles it."""
    return (members + 1) * (2 * row.prefix + row.canvas[1] + row.length) > GROUP_KEYS


def _padded_prefix(prefix: int, page_size: int) -> int:
    """The prefix rounded up to a power of two of pages."""
    pages = -(-prefix // page_size)
    return page_size * (1 << (pages - 1).bit_length()) if pages else 0


def _row_group(rows: Sequence[AttentionRow], start: int, page_size: int, device: torch.device) -> RowGroup:
    length, padded, causal, window, canvas, fresh = _shape(rows[0], page_size)
    prefix = torch.tensor([row.prefix for row in rows], dtype=torch.int64, device=device)
    parts: list[Tensor] = []
    if padded:
        parts.append(_prefix_keys(rows, prefix, padded, page_size, device))
    if canvas:
        first = torch.tensor([row.canvas[0] for row in rows], dtype=torch.int64, device=device)
        parts.append(first[:, None] + torch.arange(canvas, device=device))
    if parts and fresh:
        parts.append(parts[0][:, :1].expand(-1, length))
    return RowGroup(
        start=start,
        rows=len(rows),
        length=length,
        keys=torch.cat(parts, dim=1).flatten() if parts else None,
        mask=_mask(prefix, padded, length, canvas + length * fresh, (causal, window), device),
        fresh=fresh,
    )


def _prefix_keys(
    rows: Sequence[AttentionRow], prefix: Tensor, padded: int, page_size: int, device: torch.device
) -> Tensor:
    """[rows, padded] store token of each prefix token.

    Padding repeats a token of the row's prefix: a page may hold another time's content after
    it, and a masked key still spoils the result when it is not finite.
    """
    widest = (max(row.skip for row in rows) + padded) // page_size + 1
    table = [[*row.pages[:widest], *row.pages[:1] * (widest - len(row.pages))] for row in rows]
    pages = torch.tensor(table, dtype=torch.int64, device=device)
    within = torch.arange(padded, device=device)
    skip = torch.tensor([row.skip for row in rows], dtype=torch.int64, device=device)[:, None]
    token = skip + torch.where(within < prefix[:, None], within, 0)
    return pages.gather(1, token // page_size) * page_size + token % page_size


def _mask(
    prefix: Tensor, padded: int, length: int, rest: int, order: tuple[bool, int | None], device: torch.device
) -> Tensor | None:
    causal, window = order
    if not causal and bool((prefix == padded).all()):
        return None
    old = torch.arange(padded, device=device) < prefix[:, None]
    old = old[:, None, None, :].expand(-1, 1, length if causal else 1, -1)
    own = torch.ones(length if causal else 1, rest, dtype=torch.bool, device=device)
    own = own.tril(rest - length) if causal else own
    mask = torch.cat((old, own.expand(len(prefix), 1, -1, -1)), dim=-1)
    return mask if window is None else mask & _within(window, prefix, padded, length, device)


def _within(window: int, prefix: Tensor, padded: int, length: int, device: torch.device) -> Tensor:
    """[rows, 1, length, padded + length]: keys fewer than `window` tokens behind the query."""
    query = prefix[:, None] + torch.arange(length, device=device)
    old = torch.arange(padded, device=device).expand(len(prefix), -1)
    key = torch.cat((old, query), dim=1)
    return (query[:, :, None] - key[:, None, :] < window)[:, None]
