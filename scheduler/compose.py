"""What one replica does in one step: phase-balanced composition of a batch plan."""

from collections.abc import Generator
from contextlib import closing
from enum import StrEnum
from heapq import merge
from typing import Protocol

from easel.scheduler.books import Books
from easel.scheduler.cost import CostModel
from easel.scheduler.draft import Draft
from easel.scheduler.life import RequestState, Stage
from easel.scheduler.messages import BatchPlan, PhasePolicy, RefreshOrder
from easel.scheduler.queue import RefreshQueue, arrival, urgency

CANDIDATES = 16  # waiting requests looked at in one step


class ComposePolicy(StrEnum):
    """How a replica mixes refresh and reuse work; all but BALANCED exist for comparison."""

    BALANCED = "balanced"
    FCFS = "fcfs"
    LOCKSTEP = "lockstep"
    SEGREGATED = "segregated"


class Composer(Protocol):
    """Chooses one forward's rows. Admits newcomers (slot and pages); changes no request's progress.

    The plan is empty only if no request can make progress.
    """

    def __call__(
        self, books: Books, queue: RefreshQueue, policy: PhasePolicy, cost: CostModel, now: float
    ) -> BatchPlan: ...


def compose(books: Books, queue: RefreshQueue, policy: PhasePolicy, cost: CostModel, now: float) -> BatchPlan:
    """One forward's rows: every running canvas, then newcomers up to the policy's target.

    A running canvas is never delayed by a newcomer, and one that has finished its block commits
    it and opens the next at once. Newcomers' prefill chunks and openings follow by slack while
    predicted cost and refresh quota allow; one that does not fit is skipped, and ages, so that a
    long prompt is neither a wall nor a victim. At least one newcomer makes a block of progress.
    """
    draft = Draft(books, policy, cost)
    draft.add_running_canvases()
    draft.add_finished_blocks()
    with closing(_newcomers(books, queue, policy.order)) as newcomers:
        for state in newcomers:
            if draft.quota_left < books.shape.block_length:
                break
            _advance(draft, books, queue, state, now)
    return draft.plan()


def _advance(draft: Draft, books: Books, queue: RefreshQueue, state: RequestState, now: float) -> None:
    if state.stage is Stage.WAITING:
        if not books.slots.free or draft.room(0) == 0:
            return
        if not books.admit(state, now):
            state.passed_over += 1
            return
        queue.admitted(state)
        state.passed_over = 0
    room = draft.room(state.written)
    if room and draft.advance(state, room):
        state.passed_over = 0


def _newcomers(books: Books, queue: RefreshQueue, order: RefreshOrder) -> Generator[RequestState, None, None]:
    """Requests without a canvas, those with a slot and those without, the most urgent first."""
    key = urgency if order is RefreshOrder.SLACK else arrival
    for state in books.slots.prefilling.values():
        state.passed_over += 1  # unless it gets a row
    held = sorted(books.slots.prefilling.values(), key=key)
    if not books.slots.free or not queue:
        yield from held
        return
    with closing(queue.candidates(order, CANDIDATES)) as waiting:
        yield from merge(held, waiting, key=key)
