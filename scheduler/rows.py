"""The rows a request contributes to a forward, made from its state."""

from easel.scheduler.cost import Workload
from easel.scheduler.life import Continuation, RequestState
from easel.scheduler.messages import CanvasSpec, Row, Tightening
from easel.scheduler.phase import RowKind
from easel.scheduler.request import DiffusionParams
from easel.scheduler.tightening import tightened


def prefill_row(state: RequestState, length: int) -> Row:
    """The next `length` positions of the prefix; their pages must be in the page table."""
    end = state.written + length
    return _row(state, RowKind.PREFILL, state.written, length, tuple(state.tokens[state.written : end]))


def commit_row(state: RequestState) -> Row:
    """The block before the canvas, which is finished; its pages must be in the page table."""
    start = state.canvas_start - state.block_length
    return _row(state, RowKind.COMMIT, start, state.block_length, tuple(state.tokens[start:]))


def open_row(state: RequestState, valve: Tightening | None = None) -> Row:
    """The first step of the next canvas, which settles as the request asks or as `valve` makes it.

    The state remembers which of the two; nothing else of it changes.
    """
    start, request = state.canvas_start, state.request
    diffusion = request.diffusion if valve is None else _settles_by(state, valve)
    state.tightened = diffusion is not request.diffusion
    canvas = CanvasSpec(
        state.block_index,
        request.prompt[start:],
        state.limit,
        request.sampling,
        diffusion,
        request.snapshots,
    )
    return _whole_row(state, RowKind.OPEN, canvas)


def step_row(state: RequestState) -> Row:
    """The next step of an open canvas."""
    period = state.request.diffusion.rebuild_every
    if (period and state.step % period == 0) or (not period and not state.shares_prefix):
        return _whole_row(state, RowKind.REBUILD)
    length = state.path[-1].live if period and state.shares_prefix else state.block_length
    before = () if state.shares_prefix else tuple(state.tokens[-1:])
    return _row(state, RowKind.REUSE, state.canvas_start, length, before)


def opening_size(state: RequestState) -> tuple[int, int]:
    """Tokens and query-key pairs of the row that opens the next canvas."""
    if state.span:
        return state.span, state.span * state.span
    return state.block_length, state.block_length * (state.canvas_start + state.block_length)


def continuation(state: RequestState, valve: Tightening | None) -> Continuation:
    """How a request goes on whose block is finished; the block's pages must be in the page table."""
    commit = commit_row(state) if state.to_commit else None
    opening = open_row(state, valve)
    load = Workload()
    if commit is not None:
        load.add(commit)
    load.add(opening)
    return Continuation(commit, opening, load, valve)


def _settles_by(state: RequestState, valve: Tightening) -> DiffusionParams:
    if state.settles_by is None or state.valve != valve:
        state.valve, state.settles_by = valve, tightened(state.request.diffusion, valve)
    return state.settles_by


def _whole_row(state: RequestState, kind: RowKind, canvas: CanvasSpec | None = None) -> Row:
    """A step that computes all of the canvas, and where all see all the whole sequence."""
    if state.shares_prefix:
        return _row(state, kind, state.canvas_start, state.block_length, (), canvas)
    return _row(state, kind, 0, state.span, tuple(state.tokens[: state.canvas_start]), canvas)


def _row(
    state: RequestState,
    kind: RowKind,
    start: int,
    length: int,
    tokens: tuple[int, ...],
    canvas: CanvasSpec | None = None,
) -> Row:
    """In the order of Row's fields, which is a third faster than by name."""
    return Row(
        kind,
        state.request.request_id,
        -1 if state.slot is None else state.slot,
        start,
        length,
        state.page_table,
        tokens,
        canvas,
        state.canvas_start,
        state.span,
        state.window_table,
        state.window_first,
        state.request.diffusion.rebuild_every > 0 and kind.needs_head,
    )
