"""Requests that wait for a slot, ordered by slack, with a way out for each of them."""

from collections import OrderedDict
from collections.abc import Generator
from heapq import heapify, heappop, heappush
from itertools import islice

from easel.scheduler.cost import CostModel
from easel.scheduler.life import RequestState
from easel.scheduler.messages import RefreshOrder

TARGET_SECONDS = 1.0  # to the first canvas, for a prompt that costs nothing
TARGET_STRETCH = 4.0  # and this many times the prefill's own cost on top
OLDEST_SHARE = 4  # one admission in this many goes to whoever has waited longest
PATIENCE = 64  # plans the oldest may be passed over for lack of pages before it bars the way

_Entry = tuple[int, float, int, RequestState]


def update_due(state: RequestState, cost: CostModel) -> None:
    """Sets the latest time the rest of the prefill can start; slack is `due` less the time now.

    The target grows with the prompt, so a long prompt neither goes before all the short ones
    (it has the most left to do) nor behind all that ever come (its own target is fixed).
    """
    whole = cost.of_prefill(0, state.canvas_start)
    left = cost.of_prefill(state.written, state.canvas_start)
    state.due = state.submitted_at + TARGET_SECONDS + TARGET_STRETCH * whole - left


def urgency(state: RequestState) -> tuple[bool, int, float, int]:
    """Sort key of refresh work: the smaller, the sooner."""
    return (state.passed_over < PATIENCE, state.request.priority, state.due, state.order)


def arrival(state: RequestState) -> tuple[bool, int, float, int]:
    """Sort key of refresh work by order of submission."""
    return (state.passed_over < PATIENCE, 0, 0.0, state.order)


class RefreshQueue:
    """Waiting requests. Every operation is O(log n), amortised; no step ever walks the queue.

    Nothing waits for ever: one admission in OLDEST_SHARE is the longest waiting request's,
    whatever the priorities; and once lack of pages has passed it over PATIENCE times, nobody
    else is a candidate until enough running requests have ended for it to fit.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._live: OrderedDict[str, RequestState] = OrderedDict()
        self._admissions = 0
        self.prefill_tokens = 0  # of all that wait, cached or not

    def __len__(self) -> int:
        return len(self._live)

    @property
    def stale(self) -> int:
        """Entries of requests that left, not dropped yet; at most as many as wait, and a few."""
        return len(self._heap) - len(self._live)

    def push(self, state: RequestState) -> None:
        """Adds a request; its `due` must be set and does not change while it waits."""
        self._live[state.request_id] = state
        self.prefill_tokens += state.canvas_start
        heappush(self._heap, (state.request.priority, state.due, state.order, state))

    def discard(self, state: RequestState) -> None:
        """Removes a request that was cancelled."""
        del self._live[state.request_id]
        self.prefill_tokens -= state.canvas_start
        if len(self._heap) > 2 * len(self._live) + 64:
            self._heap = [entry for entry in self._heap if self._waits(entry[3])]
            heapify(self._heap)

    def admitted(self, state: RequestState) -> None:
        """Removes a request that got a slot."""
        self._admissions += 1
        self.discard(state)

    def candidates(self, order: RefreshOrder, limit: int) -> Generator[RequestState, None, None]:
        """Up to about `limit` requests, the one to admit first first; close it when done.

        Admitting a candidate while iterating is fine; the others stay queued.
        """
        oldest = next(iter(self._live.values()), None)
        if oldest is None:
            return
        if oldest.passed_over >= PATIENCE:
            yield oldest
        elif order is RefreshOrder.ARRIVAL:
            yield from self.by_arrival(limit)
        else:
            if self._admissions % OLDEST_SHARE == OLDEST_SHARE - 1:
                yield oldest
            yield from self.by_slack(limit)

    def by_arrival(self, limit: int) -> list[RequestState]:
        """The `limit` longest waiting requests."""
        return list(islice(self._live.values(), limit))

    def by_slack(self, limit: int) -> Generator[RequestState, None, None]:
        """Up to `limit` requests by priority, then slack."""
        seen: list[_Entry] = []
        try:
            while self._heap and len(seen) < limit:
                entry = heappop(self._heap)
                if self._waits(entry[3]):
                    seen.append(entry)
                    yield entry[3]
        finally:
            for entry in seen:
                if self._waits(entry[3]):
                    heappush(self._heap, entry)

    def _waits(self, state: RequestState) -> bool:
        return self._live.get(state.request_id) is state
