"""What one replica does in one step: phase-balanced composition of a batch plan."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from enum import StrEnum
from heapq import merge
from typing import Protocol

from easel.scheduler.draft import Draft
from easel.scheduler.life import RequestState, Stage
from easel.scheduler.messages import RefreshOrder
from easel.scheduler.queue import RefreshQueue, arrival, urgency

CANDIDATES = 16  # waiting requests looked at in one step


class ComposePolicy(StrEnum):
    """How a replica mixes refresh and reuse work; all but BALANCED exist for comparison."""

    BALANCED = "balanced"
    FCFS = "fcfs"
    LOCKSTEP = "lockstep"
    SEGREGATED = "segregated"


class Composer(Protocol):
    """Adds one forward's rows. Admits newcomers (slot and pages); changes no request's progress.

    The draft stays empty only if no request can make progress.
    """

    def __call__(self, draft: Draft, queue: RefreshQueue, now: float) -> None: ...


def compose(draft: Draft, queue: RefreshQueue, now: float) -> None:
    """One forward's rows: every running canvas, then newcomers up to the policy's target.

    A running canvas is never delayed by a newcomer, and one that has finished its block commits
    it and opens the next at once. Newcomers' prefill chunks and openings follow by slack while
    predicted cost and refresh quota allow; one that does not fit is skipped, and ages, so that a
    long prompt is neither a wall nor a victim. At least one newcomer makes a block of progress.
    """
    draft.add_running_canvases()
    draft.add_finished_blocks()
    order = draft.policy.order
    key = urgency if order is RefreshOrder.SLACK else arrival
    held = _held(draft, key)
    if queue and draft.books.slots.free:
        with closing(queue.candidates(order, CANDIDATES)) as waiting:
            _add_newcomers(draft, queue, merge(held, _while_slots_last(draft, waiting), key=key), now)
    elif held:
        _add_newcomers(draft, queue, held, now)


def _held(draft: Draft, key: Callable[[RequestState], tuple[bool, int, float, int]]) -> list[RequestState]:
    """Requests with a slot and no canvas yet, the most urgent first."""
    prefilling = draft.books.slots.prefilling
    for state in prefilling.values():
        state.passed_over += 1  # unless it gets a row
    return sorted(prefilling.values(), key=key)


def _while_slots_last(draft: Draft, waiting: Iterable[RequestState]) -> Generator[RequestState, None, None]:
    for state in waiting:
        if not draft.books.slots.free:
            return
        yield state


def _add_newcomers(draft: Draft, queue: RefreshQueue, newcomers: Iterable[RequestState], now: float) -> None:
    block, slots = draft.books.shape.block_length, draft.books.slots
    for state in newcomers:
        if draft.quota_left < block:
            return
        room = draft.room(state.written)
        if state.stage is Stage.WAITING:
            if not room:
                return  # least of all is there for those who have written more
            if not slots.free or not _let_in(draft, queue, state, now):
                continue
            room = draft.room(state.written) if state.written else room
        if room and draft.advance(state, room):
            state.passed_over = 0


def _let_in(draft: Draft, queue: RefreshQueue, state: RequestState, now: float) -> bool:
    if not draft.books.admit(state, now):
        state.passed_over += 1
        return False
    queue.admitted(state)
    state.passed_over = 0
    return True
