"""Simpler composers, for comparison with the balanced one. All ignore slack and predicted cost."""

from easel.scheduler.books import Books
from easel.scheduler.compose import CANDIDATES
from easel.scheduler.cost import CostModel
from easel.scheduler.draft import Draft
from easel.scheduler.life import RequestState
from easel.scheduler.messages import BatchPlan, PhasePolicy
from easel.scheduler.queue import RefreshQueue


def fcfs(books: Books, queue: RefreshQueue, policy: PhasePolicy, cost: CostModel, now: float) -> BatchPlan:
    """Every running canvas, then newcomers in order of arrival up to the first that does not fit."""
    draft = Draft(books, policy, cost)
    draft.add_running_canvases()
    draft.add_finished_blocks()
    _add_by_arrival(draft, books, queue, now)
    return draft.plan()


def segregated(
    books: Books, queue: RefreshQueue, policy: PhasePolicy, cost: CostModel, now: float
) -> BatchPlan:
    """Refresh first: while any refresh can be done, running canvases wait."""
    draft = Draft(books, policy, cost)
    draft.add_finished_blocks()
    _add_by_arrival(draft, books, queue, now)
    plan = draft.plan()
    if plan.rows:
        return plan
    draft.add_running_canvases()
    return draft.plan()


def lockstep(
    books: Books, queue: RefreshQueue, policy: PhasePolicy, cost: CostModel, now: float
) -> BatchPlan:
    """Static batches by arrival: a batch is admitted once the one before has entirely ended."""
    if books.slots.used == 0:
        while books.slots.free and (state := _next_arrival(queue)) is not None:
            if not books.admit(state, now):
                break
            queue.admitted(state)
    draft = Draft(books, policy, cost)
    draft.add_running_canvases()
    draft.add_finished_blocks()
    _add_held(draft, books)
    return draft.plan()


def _add_by_arrival(draft: Draft, books: Books, queue: RefreshQueue, now: float) -> None:
    if not _add_held(draft, books):
        return
    for _ in range(CANDIDATES):
        state = _next_arrival(queue)
        if state is None or draft.quota_left < books.shape.block_length:
            return
        if not books.admit(state, now):
            return
        queue.admitted(state)
        if not draft.advance(state, _room(draft, books)):
            return


def _add_held(draft: Draft, books: Books) -> bool:
    """Work of those that have a slot and no canvas; False when one of them did not fit."""
    block = books.shape.block_length
    for state in sorted(books.slots.prefilling.values(), key=lambda state: state.order):
        if draft.quota_left < block or not draft.advance(state, _room(draft, books)):
            return False
    return True


def _room(draft: Draft, books: Books) -> int:
    block = books.shape.block_length
    return draft.quota_left // block * block


def _next_arrival(queue: RefreshQueue) -> RequestState | None:
    return next(iter(queue.by_arrival(1)), None)
