"""Simpler composers, for comparison with the balanced one. All ignore slack and predicted cost."""

from easel.scheduler.compose import CANDIDATES
from easel.scheduler.draft import Draft
from easel.scheduler.life import RequestState
from easel.scheduler.queue import RefreshQueue


def fcfs(draft: Draft, queue: RefreshQueue, now: float) -> None:
    """Every running canvas, then newcomers in order of arrival up to the first that does not fit."""
    draft.add_running_canvases()
    draft.add_finished_blocks()
    _add_by_arrival(draft, queue, now)


def segregated(draft: Draft, queue: RefreshQueue, now: float) -> None:
    """Refresh first: while any refresh can be done, running canvases wait."""
    draft.add_finished_blocks()
    _add_by_arrival(draft, queue, now)
    if draft.empty:
        draft.add_running_canvases()


def lockstep(draft: Draft, queue: RefreshQueue, now: float) -> None:
    """Static batches by arrival: a batch is admitted once the one before has entirely ended."""
    books = draft.books
    if books.slots.used == 0:
        while books.slots.free and (state := _next_arrival(queue)) is not None:
            if not books.admit(state, now):
                break
            queue.admitted(state)
    draft.add_running_canvases()
    draft.add_finished_blocks()
    _add_held(draft)


def _add_by_arrival(draft: Draft, queue: RefreshQueue, now: float) -> None:
    if not _add_held(draft):
        return
    for _ in range(CANDIDATES):
        state = _next_arrival(queue)
        if state is None or draft.quota_left < draft.books.shape.block_length:
            return
        if not draft.books.admit(state, now):
            return
        queue.admitted(state)
        if not draft.advance(state, _room(draft)):
            return


def _add_held(draft: Draft) -> bool:
    """Work of those that have a slot and no canvas; False when one of them did not fit."""
    block = draft.books.shape.block_length
    for state in sorted(draft.books.slots.prefilling.values(), key=lambda state: state.order):
        if draft.quota_left < block or not draft.advance(state, _room(draft)):
            return False
    return True


def _room(draft: Draft) -> int:
    block = draft.books.shape.block_length
    return draft.quota_left // block * block


def _next_arrival(queue: RefreshQueue) -> RequestState | None:
    return next(iter(queue.by_arrival(1)), None)
