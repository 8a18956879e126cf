"""Attention of ragged rows over a paged prefix and their own fresh keys.

Every row attends to the first `prefix` tokens of its pages and to itself: all of itself
(a block that is committed, prefilled or denoised) or causally. Keys that other rows of the
same forward write are in the pages before attention runs, so a canvas can open on a block
that is committed in the same forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Neighbouring rows of one length and similar prefix, attended in one dense call."""

    start: int  # first token, in the ragged batch
    rows: int
    length: int  # queries of each row
    keys: Tensor | None  # [rows * (padded + length)]  int64  page token of each key; None: no prefix
    mask: Tensor | None  # [rows, 1, 1 or length, padded + length]  bool  None: all visible


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """Who sees what in one forward; built once, used by every layer."""

    groups: tuple[RowGroup, ...]


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """One row: `length` queries after `prefix` tokens held in `pages`."""

    pages: tuple[int, ...]
    prefix: int
    length: int
    causal: bool = False


def attention_layout(rows: Sequence[AttentionRow], page_size: int, device: torch.device) -> AttentionLayout:
    """Group neighbouring rows whose lengths agree and whose prefixes pad to the same size.

    Sort rows by prefix first: padding is then below a factor of two.
    """
    groups: list[RowGroup] = []
    start = first = 0
    for index, row in enumerate(rows):
        last = index + 1 == len(rows)
        if last or _shape(rows[index + 1], page_size) != _shape(row, page_size):
            members = rows[first : index + 1]
            groups.append(_row_group(members, start, page_size, device))
            start += len(members) * row.length
            first = index + 1
    return AttentionLayout(tuple(groups))


def canvas_attention(
    q: Tensor, k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, layout: AttentionLayout, scale: float
) -> Tensor:
    """Softmax(q·kᵀ·scale)·v over prefix and own keys.

    q [tokens, heads, d]; k, v [tokens, kv_heads, d], the rows' fresh keys and values;
    k_pages, v_pages [pages, page_size, kv_heads, d]. Returns [tokens, heads, d].
    """
    if q.shape[1] % k.shape[1] or k.shape != v.shape:
        raise ValueError(f"canvas_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
    out = torch.empty_like(q)
    flat = (k_pages.flatten(0, 1), v_pages.flatten(0, 1))
    for group in layout.groups:
        end = group.start + group.rows * group.length
        span = slice(group.start, end)
        _attend(group, q[span], (k[span], v[span]), flat, scale, out[span])
    return out


def reference_canvas_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    rows: Sequence[AttentionRow],
    scale: float,
) -> Tensor:
    """The definition, a row and a head at a time, in float64."""
    out = torch.empty_like(q)
    share = q.shape[1] // k.shape[1]
    start = 0
    for row in rows:
        span = slice(start, start + row.length)
        table = torch.tensor(list(row.pages), dtype=torch.int64)
        for head in range(q.shape[1]):
            old_k = k_pages[table, :, head // share].flatten(0, 1)[: row.prefix]
            old_v = v_pages[table, :, head // share].flatten(0, 1)[: row.prefix]
            keys = torch.cat((old_k, k[span, head // share])).double()
            values = torch.cat((old_v, v[span, head // share])).double()
            scores = q[span, head].double() @ keys.T * scale
            if row.causal:
                visible = torch.ones_like(scores, dtype=torch.bool).tril(row.prefix)
                scores = scores.masked_fill(~visible, float("-inf"))
            out[span, head] = (scores.softmax(-1) @ values).to(q.dtype)
        start = span.stop
    return out


def _attend(
    group: RowGroup,
    q: Tensor,
    fresh: tuple[Tensor, Tensor],
    pages: tuple[Tensor, Tensor],
    scale: float,
    out: Tensor,
) -> None:
    heads, dim = q.shape[1:]
    kv_heads = fresh[0].shape[1]
    share = heads // kv_heads
    # Heads that share keys become extra queries, so keys are never repeated in memory.
    queries = q.view(group.rows, group.length, kv_heads, share, dim).permute(0, 2, 3, 1, 4)
    queries = queries.reshape(group.rows, kv_heads, share * group.length, dim)
    keys, values = (_keys(group, new, old) for new, old in zip(fresh, pages, strict=True))
    mask = group.mask
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, share, 1)
    found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    found = found.view(group.rows, kv_heads, share, group.length, dim).permute(0, 3, 1, 2, 4)
    out.view(group.rows, group.length, kv_heads, share, dim).copy_(found)


def _keys(group: RowGroup, fresh: Tensor, pages: Tensor) -> Tensor:
    """[rows, kv_heads, padded + length, d]: the gathered prefix, then the rows' own.

    The gather leaves room for the own keys: joining two tensors would copy everything again.
    """
    own = fresh.view(group.rows, group.length, *fresh.shape[1:])
    if group.keys is None:
        return own.transpose(1, 2)
    gathered = pages.index_select(0, group.keys).view(group.rows, -1, *fresh.shape[1:])
    gathered[:, -group.length :] = own
    return gathered.transpose(1, 2)


def _shape(row: AttentionRow, page_size: int) -> tuple[int, int, bool]:
    return row.length, _padded_prefix(row.prefix, page_size), row.causal


def _padded_prefix(prefix: int, page_size: int) -> int:
    """The prefix rounded up to a power of two of pages."""
    pages = -(-prefix // page_size)
    return page_size * (1 << (pages - 1).bit_length()) if pages else 0


def _row_group(rows: Sequence[AttentionRow], start: int, page_size: int, device: torch.device) -> RowGroup:
    length, padded, causal = _shape(rows[0], page_size)
    prefix = torch.tensor([row.prefix for row in rows], dtype=torch.int64, device=device)
    keys = None
    if padded:
        per_row = padded // page_size
        table = [[*row.pages[:per_row], *row.pages[:1] * (per_row - len(row.pages))] for row in rows]
        first = torch.tensor(table, dtype=torch.int64, device=device) * page_size
        index = (first[:, :, None] + torch.arange(page_size, device=device)).flatten(1)
        # Padding repeats a token of the row's prefix: a page may hold another time's content after
        # it, and a masked key still spoils the result when it is not finite.
        visible = torch.arange(padded, device=device) < prefix[:, None]
        filler = index[:, :1]
        keys = torch.cat((torch.where(visible, index, filler), filler.expand(-1, length)), dim=1).flatten()
    mask = _mask(prefix, padded, length, causal, device)
    return RowGroup(start=start, rows=len(rows), length=length, keys=keys, mask=mask)


def _mask(prefix: Tensor, padded: int, length: int, causal: bool, device: torch.device) -> Tensor | None:
    if not causal and bool((prefix == padded).all()):
        return None
    old = torch.arange(padded, device=device) < prefix[:, None]
    old = old[:, None, None, :].expand(-1, 1, length if causal else 1, -1)
    own = torch.ones(length if causal else 1, length, dtype=torch.bool, device=device)
    own = own.tril() if causal else own
    return torch.cat((old, own.expand(len(prefix), 1, -1, -1)), dim=-1)
