"""Who gives up a slot when a more urgent request waits, and whether now or at the end of its block."""

from easel.scheduler.books import Books
from easel.scheduler.forecast import Forecast
from easel.scheduler.life import AfterBlock, RequestState
from easel.scheduler.queue import RefreshQueue

MOST_PREEMPTIONS = 3  # of one request; after that it keeps its slot to its end


class Preemption:
    """Chooses victims. Changes nothing; O(1) while nobody waits who could displace another."""

    def __init__(self, books: Books, queue: RefreshQueue, forecast: Forecast) -> None:
        self._books = books
        self._queue = queue
        self._forecast = forecast

    def victim(self, now: float) -> RequestState | None:
        """A request to lose its slot: of the latest class, with the most slack, then the least done.

        There is one if the most urgent waiting request is of a sooner class, or of the same one and about
        to miss a deadline that the other has time to give way for; if it lacks a slot or pages; and if those
        that could give way have enough. As many requests give way as wait for it.
        """
        first = self._needy(now)
        if first is None:
            return None
        holders = list(self._books.slots.holders)
        yielding = sum(1 for state in holders if state.after is AfterBlock.YIELD)
        if yielding and (self._books.slots.free or yielding >= self._waiting_in_front()):
            return None
        able = [state for state in holders if self._gives_way(state, first, now)]
        if not able or self._books.lacking(first) > sum(self._books.gain(state) for state in able):
            return None
        return max(able, key=lambda state: self._rank(state, now))

    def leaves_at_once(self, state: RequestState) -> bool:
        """Whether its open canvas is cheaper to drop, and be done again, than to finish first."""
        return state.step < self._forecast.steps_left(state) or not state.path

    def still_wanted(self, state: RequestState, now: float) -> bool:
        """Whether a request that is to give up its slot still has somebody to give it to."""
        first = self._queue.first
        if first is None or (self._books.slots.free and self._books.lacking(first) <= 0):
            return False
        return first.request.priority < state.request.priority or (
            first.request.priority == state.request.priority and self._late(first, now)
        )

    def _needy(self, now: float) -> RequestState | None:
        """The most urgent waiting request, if it may displace somebody and has to."""
        soonest, latest = self._queue.soonest_class, self._books.slots.latest_class
        if soonest is None or latest is None or soonest > latest:
            return None
        if soonest == latest and not self._queue.deadlines:
            return None
        first = self._queue.first
        if first is None or self._queue.barred or not (soonest < latest or self._late(first, now)):
            return None
        fits = self._books.slots.free and self._books.lacking(first) <= 0
        return None if fits else first

    def _waiting_in_front(self) -> int:
        """How many wait whose class is sooner than that of some holder of a slot, but at least one."""
        latest = self._books.slots.latest_class
        return max(1, self._queue.sooner_than(latest)) if latest is not None else 1

    def _late(self, state: RequestState, now: float) -> bool:
        """Whether its deadline would be missed if it waited for one more block to be finished."""
        if state.request.deadline_seconds is None:
            return False
        latest_start = state.deadline - self._forecast.service_seconds(state)
        return latest_start - now < self._forecast.block_seconds and now < state.deadline

    def _gives_way(self, state: RequestState, first: RequestState, now: float) -> bool:
        if state.after is not AfterBlock.GO_ON or state.preemptions >= MOST_PREEMPTIONS:
            return False
        if state.request.priority != first.request.priority:
            return state.request.priority > first.request.priority
        delay = self._forecast.service_seconds(first) + self._forecast.block_seconds
        return self._late(first, now) and self._forecast.slack(state, now) > delay

    def _rank(self, state: RequestState, now: float) -> tuple[int, float, int]:
        return (state.request.priority, self._forecast.slack(state, now), -state.output_tokens)
