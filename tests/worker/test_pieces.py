"""How each kind of row of each sequence layout becomes tokens that attend to what they should."""

from dataclasses import replace

import pytest

from easel.kernels.attention import AttentionRow
from easel.scheduler.messages import Row
from easel.scheduler.phase import RowKind, SequenceLayout
from easel.worker.pieces import Geometry, Piece, pieces_of

MASK = 0
WINDOW = 6
BLOCKS = Geometry(SequenceLayout.BLOCK_CAUSAL, 4, 4, MASK, canvas_base=(400,))
CAUSAL = Geometry(SequenceLayout.CAUSAL, 4, 4, MASK, windows=(None, WINDOW), canvas_base=(400, 80))
WHOLE = Geometry(SequenceLayout.BIDIRECTIONAL, 4, 4, MASK)
SHIFTED = replace(WHOLE, shift=1)


def _row(kind: RowKind, start: int, length: int, pages: tuple[int, ...] = ()) -> Row:
    return Row(kind, "r", 2, start, length, pages, canvas_start=start)


def _only(row: Row, geometry: Geometry, live: tuple[int, ...] = ()) -> Piece:
    (piece,) = pieces_of(row, geometry, live)
    return piece


def test_a_causal_chunk_is_one_piece_that_begins_anywhere() -> None:
    tokens = tuple(range(50, 57))
    row = replace(
        _row(RowKind.PREFILL, 9, 7, (3, 1, 4, 5)), tokens=tokens, window_pages=(8, 6, 7), window_first=1
    )
    piece = _only(row, CAUSAL)
    assert (list(piece.positions), tuple(piece.tokens)) == (list(range(9, 16)), tokens)
    assert piece.rows == (
        AttentionRow((3, 1, 4, 5), prefix=9, length=7, causal=True),
        AttentionRow((8, 6, 7), prefix=5, length=7, causal=True, window=WINDOW, skip=0),
    )
    assert [list(places) for places in piece.stored] == [
        [17, 18, 19, 20, 21, 22, 23],
        [25, 26, 27, 28, 29, 30, 31],
    ]


def test_a_canvas_sees_the_windows_last_tokens_the_same_for_all_its_positions() -> None:
    row = replace(_row(RowKind.OPEN, 11, 4, (3, 1, 4)), window_pages=(8, 6), window_first=1)
    piece = _only(row, CAUSAL)
    assert piece.rows == (
        AttentionRow((3, 1, 4), prefix=11, length=4),
        AttentionRow((8, 6), prefix=WINDOW - 1, length=4, skip=2),
    )
    assert piece.stored == ()
    assert (piece.canvas_start, list(piece.tokens)) == (11, [MASK] * 4)


def test_a_canvas_near_the_beginning_sees_all_there_is() -> None:
    row = replace(_row(RowKind.OPEN, 3, 4, (3,)), window_pages=(8,), window_first=0)
    assert _only(row, CAUSAL).rows[1] == AttentionRow((8,), prefix=3, length=4)


def test_a_partial_step_computes_live_positions_and_reads_all_of_the_canvas_from_the_store() -> None:
    row = replace(_row(RowKind.REUSE, 8, 2, (3, 1)), keeps=True)
    piece = _only(row, BLOCKS, live=(1, 3))
    assert list(piece.positions) == [9, 11]
    assert piece.rows == (AttentionRow((3, 1), prefix=8, length=2, canvas=(408, 4), fresh=False),)
    assert [list(places) for places in piece.stored] == [[409, 411]]


@pytest.mark.parametrize("kind", [RowKind.OPEN, RowKind.REBUILD])
def test_a_full_step_of_a_kept_canvas_stores_all_of_it(kind: RowKind) -> None:
    row = replace(_row(kind, 8, 4, (3, 1)), keeps=True)
    piece = _only(row, BLOCKS)
    assert piece.rows == (AttentionRow((3, 1), prefix=8, length=4),)
    assert [list(places) for places in piece.stored] == [[408, 409, 410, 411]]


def test_an_exact_step_stores_nothing() -> None:
    assert _only(_row(RowKind.REUSE, 8, 4, (3, 1)), BLOCKS).stored == ()


@pytest.mark.parametrize("keeps", [False, True])
def test_a_whole_sequence_is_its_tokens_then_the_canvas_then_masks(keeps: bool) -> None:
    row = replace(
        _row(RowKind.OPEN, 0, 13, (3, 1, 4, 5)), tokens=(7, 8, 9, 6, 5), canvas_start=5, span=13, keeps=keeps
    )
    piece = _only(row, WHOLE)
    assert list(piece.tokens) == [7, 8, 9, 6, 5, *[MASK] * 8]
    assert piece.rows[0].prefix == 0
    assert piece.rows[0].fresh
    expected = [12, 13, 14, 15, 4, 5, 6, 7, 16, 17, 18, 19, 20]
    assert [list(places) for places in piece.stored] == ([expected] if keeps else [])


def test_between_rebuilds_the_canvas_reads_the_whole_sequence_from_pages() -> None:
    row = replace(_row(RowKind.REUSE, 5, 4, (3, 1, 4, 5)), tokens=(5,), span=13, keeps=True)
    piece = _only(row, WHOLE)
    assert list(piece.positions) == [5, 6, 7, 8]
    assert piece.rows == (AttentionRow((3, 1, 4, 5), prefix=13, length=4, fresh=False),)
    assert [list(places) for places in piece.stored] == [[5, 6, 7, 16]]


def test_where_predictions_are_shifted_the_token_before_the_canvas_is_computed_too() -> None:
    row = replace(_row(RowKind.REUSE, 5, 4, (3, 1, 4, 5)), tokens=(9,), span=13, keeps=True)
    piece = _only(row, SHIFTED)
    assert list(piece.positions) == [4, 5, 6, 7, 8]
    assert list(piece.tokens) == [9, MASK, MASK, MASK, MASK]
    assert [list(places) for places in piece.stored] == [[4, 5, 6, 7, 16]]
