"""Plan rows cut into pieces: runs of tokens that attention can take as one row each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from easel.kernels.attention import CAUSAL_TILE, AttentionRow
from easel.scheduler.messages import Row
from easel.scheduler.phase import SequenceLayout


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the layout of a batch depends on besides the plan."""

    layout: SequenceLayout
    block_length: int
    page_size: int
    mask_token_id: int
    windows: tuple[int | None, ...] = (None,)  # of each KV group
    canvas_base: tuple[int, ...] = (0,)  # per KV group, where the canvases' store tokens begin
    shift: int = 0  # 1: a token's prediction stands at the position before it
    fixed: bool = False  # whether what a token comes to may not depend on what shares its forward


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one plan row that see the same prefix."""

    slot: int
    positions: Sequence[int]  # absolute
    tokens: Sequence[int]  # those of a canvas are filled in from the registers
    rows: tuple[AttentionRow, ...]  # per KV group
    stored: tuple[Sequence[int], ...] = ()  # per KV group, store token of each key; empty: none is stored
    canvas_start: int | None = None  # absolute; None: no canvas

    @property
    def length(self) -> int:
        return len(self.positions)


def pieces_of(row: Row, geometry: Geometry, live: Sequence[int]) -> Iterator[Piece]:
    """The pieces of one plan row. `live` are the canvas offsets that a partial step computes.

    Within a block attention is bidirectional; a chunk of several blocks becomes several pieces,
    of which each reads the earlier ones from the pages they were just written to.
    """
    if row.kind.writes_pages:
        if geometry.fixed and geometry.layout is SequenceLayout.CAUSAL:
            yield from _tiles(row, geometry)
            return
        step = geometry.block_length if geometry.layout is SequenceLayout.BLOCK_CAUSAL else row.length
        for at in range(0, row.length, step):
            yield _written(row, geometry, row.start + at, min(row.start + at + step, row.end))
    elif geometry.layout is SequenceLayout.BIDIRECTIONAL:
        yield _bidirectional(row, geometry)
    elif row.partial:
        yield _partial(row, geometry, live)
    else:
        yield _canvas(row, geometry)


def _tiles(row: Row, geometry: Geometry) -> Iterator[Piece]:
    """A causal chunk cut where the sequence's tiles end, wherever it begins itself.

    A piece sees its keys in the store, from a place that its tile implies: a token comes to the same
    whichever chunk brings it.
    """
    start = row.start
    while start < row.end:
        end = min(start - start % CAUSAL_TILE + CAUSAL_TILE, row.end)
        rows = tuple(_tile_row(row, geometry.page_size, window, start, end) for window in geometry.windows)
        yield _written(row, geometry, start, end, rows)
        start = end


def _tile_row(row: Row, page_size: int, window: int | None, start: int, end: int) -> AttentionRow:
    """The queries [start, end) of one tile, which see nothing before the first key of the tile's first."""
    pages, first = _table(row, window)
    tile = start - start % CAUSAL_TILE
    oldest = 0 if window is None else max(0, tile - window + 1) // CAUSAL_TILE * CAUSAL_TILE
    # Pages that the window has left are gone: no query of the piece sees them, and any page stands in.
    gone = max(0, first - oldest // page_size)
    skip = oldest - (first - gone) * page_size
    return AttentionRow(
        (*pages[:1] * gone, *pages), start - oldest, end - start, True, window, skip, fresh=False
    )


def _written(
    row: Row, geometry: Geometry, start: int, end: int, rows: tuple[AttentionRow, ...] | None = None
) -> Piece:
    causal = geometry.layout is SequenceLayout.CAUSAL
    return Piece(
        slot=row.slot,
        positions=range(start, end),
        tokens=row.tokens[start - row.start : end - row.start],
        rows=rows or _prefix_rows(row, geometry, start, end - start, causal=causal),
        stored=tuple(
            _page_tokens(*_table(row, window), start, end, geometry.page_size) for window in geometry.windows
        ),
    )


def _canvas(row: Row, geometry: Geometry) -> Piece:
    """All of a canvas, after its prefix."""
    positions = range(row.start, row.end)
    offsets = range(geometry.block_length)
    return Piece(
        slot=row.slot,
        positions=positions,
        tokens=[geometry.mask_token_id] * len(positions),
        rows=_prefix_rows(row, geometry, row.start, len(positions), causal=False),
        stored=_canvas_tokens(row.slot, offsets, geometry) if row.keeps else (),
        canvas_start=row.canvas_start,
    )


def _partial(row: Row, geometry: Geometry, live: Sequence[int]) -> Piece:
    """Some positions of a canvas; the others' keys and values are in the store already."""
    block = geometry.block_length
    rows = _prefix_rows(row, geometry, row.canvas_start, len(live), causal=False)
    return Piece(
        slot=row.slot,
        positions=[row.canvas_start + offset for offset in live],
        tokens=[geometry.mask_token_id] * len(live),
        rows=tuple(
            replace(group, canvas=(base + row.slot * block, block), fresh=False)
            for group, base in zip(rows, geometry.canvas_base, strict=True)
        ),
        stored=_canvas_tokens(row.slot, live, geometry),
        canvas_start=row.canvas_start,
    )


def _bidirectional(row: Row, geometry: Geometry) -> Piece:
    """A whole sequence, or of a partial step the canvas alone, all else being in the pages."""
    # A shifted prediction of the canvas's first token stands at the token before it.
    before = row.tokens[len(row.tokens) - geometry.shift :] if row.partial else row.tokens
    start = row.start - len(before) if row.partial else row.start
    positions = range(start, row.end)
    tokens = [*before, *[geometry.mask_token_id] * (len(positions) - len(before))]
    own = AttentionRow(row.pages, row.span if row.partial else 0, len(positions), fresh=not row.partial)
    stored = _page_tokens(row.pages, 0, start, row.end, geometry.page_size) if row.keeps else ()
    return Piece(
        slot=row.slot,
        positions=positions,
        tokens=tokens,
        rows=(own,),
        stored=(stored,) if row.keeps else (),
        canvas_start=row.canvas_start,
    )


def _prefix_rows(
    row: Row, geometry: Geometry, prefix: int, length: int, *, causal: bool
) -> tuple[AttentionRow, ...]:
    """Of each KV group; in sliding layers only the window's last tokens before `prefix` are seen."""
    rows: list[AttentionRow] = []
    for window in geometry.windows:
        if window is None:
            rows.append(AttentionRow(row.pages, prefix, length, causal))
            continue
        pages, first = _table(row, window)
        seen = max(0, prefix - window + 1)
        skip = seen - first * geometry.page_size
        rows.append(
            AttentionRow(pages, prefix - seen, length, causal, window if causal else None, skip),
        )
    return tuple(rows)


def _table(row: Row, window: int | None) -> tuple[tuple[int, ...], int]:
    """The page table of a KV group, and which page of the sequence it begins with."""
    return (row.pages, 0) if window is None else (row.window_pages, row.window_first)


def _page_tokens(pages: Sequence[int], first: int, start: int, end: int, page_size: int) -> list[int]:
    """Store tokens of positions [start, end), whose pages begin with the sequence's page `first`."""
    found: list[int] = []
    while start < end:
        page, offset = divmod(start, page_size)
        count = min(end - start, page_size - offset)
        at = pages[page - first] * page_size + offset
        found.extend(range(at, at + count))
        start += count
    return found


def _canvas_tokens(slot: int, offsets: Sequence[int], geometry: Geometry) -> tuple[Sequence[int], ...]:
    """Per KV group, the store tokens of a canvas's positions."""
    firsts = [base + slot * geometry.block_length for base in geometry.canvas_base]
    return tuple([first + offset for offset in offsets] for first in firsts)
