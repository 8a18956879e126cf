"""Who sees what in one forward: rows of attention, and what each device's way of attending reads of them."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import cast

import torch
from torch import Tensor

GROUP_KEYS = 1 << 16  # keys gathered in one dense call, unless a single row has more
# Both are what bench/attention.py found on a CPU.
JOINED_TOKENS = 128  # rows whose prefixes differ by more are cheaper apart than padded
ALONE_TOKENS = 1024  # from this prefix on a row is cheapest alone, its keys copied run by run
NO_WINDOW = 1 << 30  # above every distance between a query and a key
CAUSAL_TILE = 64  # positions; where it matters, causal rows begin and end within one tile of the sequence
LEAST_ROOM = 16  # keys that a short prefix is padded to where a row's padding is its own


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """One row: `length` queries that see `prefix` stored tokens, then a canvas's, then their own.

    The prefix lies in `pages` from token `skip` on. A causal row's queries follow the prefix one
    by one; with a `window` each sees that many tokens, itself included. Its own keys, if they neither
    come with the forward nor are a canvas's, are stored after the prefix.
    """

    pages: tuple[int, ...]
    prefix: int
    length: int
    causal: bool = False
    window: int | None = None  # of a causal row
    skip: int = 0  # tokens of the first pages that come before the prefix
    canvas: tuple[int, int] = (0, 0)  # first store token and number of a canvas's stored keys
    fresh: bool = True  # whether the row's own keys come with the forward, not from the store

    @property
    def rest(self) -> int:
        """Keys after the prefix."""
        return self.canvas[1] + self.length * self.fresh

    @property
    def paged(self) -> int:
        """Keys in pages."""
        return self.prefix + self.length * (self.causal and not (self.fresh or self.canvas[1]))


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Neighbouring rows of one length and similar numbers of keys, attended in one dense call."""

    start: int  # first token, in the ragged batch
    rows: int
    length: int  # queries of each row
    keys: Tensor | None  # [rows * keys of a row]  int64  store token of each key; None: `runs` has them
    runs: tuple[slice, ...]  # of a row alone: its stored keys, as store tokens; empty: own keys only
    mask: Tensor | None  # [rows, 1, 1 or length, keys of a row]  bool  None: all visible
    fresh: bool  # the last `length` keys of a row are its own
    fixed: bool = False  # whether a row's result may not depend on the others, to the last bit


@dataclass(frozen=True, slots=True)
class RaggedRows:
    """All rows as one kernel reads them."""

    table: Tensor  # [rows, fields]  int32  see ROW_FIELDS
    pages: Tensor  # [pages of all rows]  int32
    tokens: int
    page_size: int


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """Who sees what in one forward; built once, used by every layer of one KV group."""

    groups: tuple[RowGroup, ...]  # empty when `ragged` is there
    ragged: RaggedRows | None = None  # for devices that run the Triton kernel


# The order of a row's fields in RaggedRows.table.
ROW_FIELDS = (
    "start",  # first query, in the ragged batch
    "length",
    "pages",  # where the row's page table begins in RaggedRows.pages
    "skip",
    "prefix",
    "canvas",  # first store token of the canvas
    "canvas_keys",
    "fresh",  # 0 or 1
    "causal",  # 0 or 1
    "window",
)


def attention_layout(
    rows: Sequence[AttentionRow], page_size: int, device: torch.device, *, fixed: bool = False
) -> AttentionLayout:
    """What `device` needs to attend: rows as the kernel reads them, or groups for dense calls.

    A group joins neighbours that agree in all but a prefix of similar length: sort rows by prefix first.
    With `fixed` a row's keys are padded to a number that its own prefix implies, not its neighbours'.
    """
    if device.type == "cuda" and _has_triton():
        return AttentionLayout((), ragged_rows(rows, page_size, device))
    return AttentionLayout(tuple(_groups(rows, page_size, device, fixed=fixed)))


def ragged_rows(rows: Sequence[AttentionRow], page_size: int, device: torch.device) -> RaggedRows:
    """The rows in one int32 tensor on `device`: linear in rows and pages, and one copy."""
    start, fields, pages = 0, array("i"), array("i")
    for row in rows:
        window = NO_WINDOW if row.window is None else row.window
        seen = (row.skip, row.prefix, *row.canvas, row.fresh, row.causal, window)
        fields.extend((start, row.length, len(pages), *seen))
        pages.extend(row.pages[: -(-(row.skip + row.paged) // page_size)])
        start += row.length
    split, fields = len(fields), fields + pages
    both = torch.frombuffer(fields, dtype=torch.int32) if fields else torch.empty(0, dtype=torch.int32)
    both = both.to(device)
    table = both[:split].view(len(rows), len(ROW_FIELDS))
    return RaggedRows(table, both[split:], start, page_size)


def laid_out_rows(ragged: RaggedRows) -> list[AttentionRow]:
    """The rows that were laid out, with the pages that they read. Waits for the device."""
    pages = cast(list[int], ragged.pages.tolist())
    return [
        _row_of(fields, pages, ragged.page_size) for fields in cast(list[list[int]], ragged.table.tolist())
    ]


def _row_of(fields: Sequence[int], pages: Sequence[int], page_size: int) -> AttentionRow:
    held = dict(zip(ROW_FIELDS, fields, strict=True))
    own = held["length"] * (held["causal"] and not (held["fresh"] or held["canvas_keys"]))
    first, tokens = held["pages"], held["skip"] + held["prefix"] + own
    return AttentionRow(
        pages=tuple(pages[first : first + -(-tokens // page_size)]),
        prefix=held["prefix"],
        length=held["length"],
        causal=bool(held["causal"]),
        window=None if held["window"] == NO_WINDOW else held["window"],
        skip=held["skip"],
        canvas=(held["canvas"], held["canvas_keys"]),
        fresh=bool(held["fresh"]),
    )


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _groups(
    rows: Sequence[AttentionRow], page_size: int, device: torch.device, *, fixed: bool
) -> Iterator[RowGroup]:
    start, members = 0, list[AttentionRow]()
    joins = _joins_fixed if fixed else _joins
    for row in rows:
        if members and not joins(row, members):
            yield _group(members, start, page_size, device, fixed=fixed)
            start += len(members) * members[0].length
            members = []
        members.append(row)
    if members:
        yield _group(members, start, page_size, device, fixed=fixed)


def _joins(row: AttentionRow, members: Sequence[AttentionRow]) -> bool:
    """Whether a row may be attended together with others, each padded to the longest prefix."""
    first = members[0]
    widest = max(first.prefix, row.prefix) + JOINED_TOKENS + row.rest
    return (
        _shape(row) == _shape(first)
        and max(row.prefix, first.prefix) < ALONE_TOKENS
        and abs(row.prefix - first.prefix) <= JOINED_TOKENS
        and (len(members) + 1) * widest <= GROUP_KEYS
    )


def _joins_fixed(row: AttentionRow, members: Sequence[AttentionRow]) -> bool:
    """Whether a row may be attended together with others whose keys are padded to the same number.

    Rows without padding are not joined with padded ones: those have a mask.
    """
    first = members[0]
    same = _shape(row) == _shape(first) and _room(row) == _room(first)
    whole = row.paged == _room(row)
    return (
        same
        and row.prefix < ALONE_TOKENS
        and whole == (first.paged == _room(first))
        and (len(members) + 1) * (_room(row) + row.rest) <= GROUP_KEYS
    )


def _room(row: AttentionRow) -> int:
    """Keys in pages, padded: to whole tiles where queries of one tile may come in several rows, or else
    to a power of two, from 128 on to a multiple of it, unless the row is attended alone."""
    if row.paged > row.prefix:
        return -(-row.paged // CAUSAL_TILE) * CAUSAL_TILE
    if row.prefix >= ALONE_TOKENS or not row.prefix:
        return row.prefix
    if row.prefix <= JOINED_TOKENS:
        return max(LEAST_ROOM, 1 << (row.prefix - 1).bit_length())
    return -(-row.prefix // JOINED_TOKENS) * JOINED_TOKENS


def _shape(row: AttentionRow) -> tuple[int, bool, bool, int | None, int, bool]:
    """What the rows of a group have in common."""
    return row.length, row.prefix > 0, row.causal, row.window, row.canvas[1], row.fresh


def _group(
    members: Sequence[AttentionRow], start: int, page_size: int, device: torch.device, *, fixed: bool
) -> RowGroup:
    first = members[0]
    paged = [row.paged for row in members]
    padded = _room(first) if fixed else max(paged)
    alone = len(members) == 1 and min(paged) == padded >= ALONE_TOKENS
    return RowGroup(
        start=start,
        rows=len(members),
        length=first.length,
        keys=None if alone else _stored_keys(members, padded, page_size, device),
        runs=tuple(_runs(first, page_size)) if alone else (),
        mask=_mask(members, padded, device) if first.causal or min(paged) < padded else None,
        fresh=first.fresh,
        fixed=fixed,
    )


def _runs(row: AttentionRow, page_size: int) -> Iterator[slice]:
    """A row's stored keys as runs of store tokens, one for all pages that follow each other there."""
    end = row.skip + row.paged
    pages = row.pages[row.skip // page_size : -(-end // page_size)]
    first = 0  # page of the run
    for index, page in enumerate(pages, start=1):
        last = index == len(pages)
        if last or pages[index] != page + 1:
            before = row.skip % page_size if first == 0 else 0
            after = -end % page_size if last else 0
            yield slice(pages[first] * page_size + before, (page + 1) * page_size - after)
            first = index
    if row.canvas[1]:
        yield slice(row.canvas[0], sum(row.canvas))


def _stored_keys(
    rows: Sequence[AttentionRow], padded: int, page_size: int, device: torch.device
) -> Tensor | None:
    """[rows * keys of a row] store token of each key, with room for the rows' own; None: none is stored.

    Padding repeats a token of the row's prefix: a page may hold another time's content after
    it, and a masked key still spoils the result when it is not finite.
    """
    first = rows[0]
    if not padded and not first.canvas[1]:
        return None
    keys = array("q")
    for row in rows:
        start = len(keys)
        for run in _runs(row, page_size):
            keys.extend(range(run.start, run.stop))
        if row.paged < padded:
            here = start + row.paged
            keys[here:here] = array("q", keys[start : start + 1]) * (padded - row.paged)
        if row.fresh:
            keys.extend(array("q", keys[start : start + 1]) * row.length)
    return torch.frombuffer(keys, dtype=torch.int64).to(device)


def _mask(rows: Sequence[AttentionRow], padded: int, device: torch.device) -> Tensor:
    """[rows, 1, 1 or length, padded + rest] bool: which keys the queries of rows of one shape see."""
    seen, row = bytearray(), rows[0]
    for each in rows:
        seen += b"\1" * each.paged + bytes(padded - each.paged) + b"\1" * row.rest
    mask = torch.frombuffer(seen, dtype=torch.bool).to(device).view(len(rows), 1, 1, -1)
    if not row.causal:
        return mask
    prefix = torch.tensor([each.prefix for each in rows], dtype=torch.int64, device=device)[:, None]
    old = torch.arange(padded, device=device).expand(len(rows), -1)
    key = torch.cat((old, prefix + torch.arange(row.rest, device=device)), dim=1)[:, None, None]
    query = (prefix + torch.arange(row.length, device=device))[:, None, :, None]
    mask = mask & (key <= query)
    return mask if row.window is None else mask & (query - key < row.window)
