"""Requests that wait for a slot, ordered by slack, with a way out for each of them."""

from collections import Counter, OrderedDict
from collections.abc import Generator
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf

from easel.scheduler.cost import CostModel
from easel.scheduler.life import RequestState
from easel.scheduler.messages import RefreshOrder

TARGET_SECONDS = 1.0  # to the first canvas, for a prompt that costs nothing
TARGET_STRETCH = 4.0  # and this many times the prefill's own cost on top
OLDEST_SHARE = 4  # one admission in this many goes to whoever has waited longest
PATIENCE = 64  # plans the oldest may be passed over for lack of pages before it bars the way

_Entry = tuple[float, int, RequestState]


def update_due(state: RequestState, cost: CostModel, service_seconds: float = 0.0) -> None:
    """Sets the latest time the rest of the prefill can start; slack is `due` less the time now.

    The target grows with the prompt, so a long prompt neither goes before all the short ones
    (it has the most left to do) nor behind all that ever come (its own target is fixed). A deadline
    counts where it is tighter; `service_seconds` are predicted from the first canvas to the end.
    """
    whole = cost.of_prefill(0, state.canvas_start)
    left = cost.of_prefill(state.written, state.canvas_start)
    target = state.waits_since + TARGET_SECONDS + TARGET_STRETCH * whole
    state.due = min(target, state.deadline - service_seconds) - left


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
        self._heaps: dict[int, list[_Entry]] = {}  # by priority, of classes in which somebody waits
        self._live: OrderedDict[str, _Entry] = OrderedDict()
        self._classes: Counter[int] = Counter()  # how many wait, by priority
        self._admissions = 0
        self.prefill_tokens = 0  # of all that wait, cached or not
        self.deadlines = 0  # of those that wait, how many have one
        self.blocks_left = 0  # of all that wait, should their outputs come to max_tokens

    def __len__(self) -> int:
        return len(self._live)

    @property
    def stale(self) -> int:
        """Entries of requests that left, not dropped yet; at most as many as wait, and a few."""
        return sum(len(heap) for heap in self._heaps.values()) - len(self._live)

    @property
    def soonest_class(self) -> int | None:
        """The most urgent priority of those that wait."""
        return min(self._heaps, default=None)

    @property
    def first(self) -> RequestState | None:
        """The most urgent one by priority and slack."""
        head = self._head(min(self._heaps)) if self._heaps else None
        return None if head is None else head[2]

    @property
    def least_due(self) -> float:
        """The earliest `due` of all that wait; infinite if nobody does."""
        heads = [self._head(priority) for priority in self._heaps]
        return min((head[0] for head in heads if head is not None), default=inf)

    @property
    def barred(self) -> bool:
        """Whether nobody but the longest waiting request is a candidate."""
        oldest = self._oldest
        return oldest is not None and oldest.passed_over >= PATIENCE

    def sooner_than(self, priority: int) -> int:
        """How many wait whose class is more urgent."""
        return sum(count for other, count in self._classes.items() if other < priority)

    def push(self, state: RequestState) -> None:
        """Adds a request; its `due` must be set and does not change while it waits.

        One that lost its slot has waited longer than those that never had one.
        """
        priority = state.request.priority
        entry = self._live[state.request_id] = (state.due, state.order, state)
        if state.preemptions:
            self._live.move_to_end(state.request_id, last=False)
        self._classes[priority] += 1
        self.prefill_tokens += state.canvas_start
        self.blocks_left += state.blocks_left
        self.deadlines += state.request.deadline_seconds is not None
        heappush(self._heaps.setdefault(priority, []), entry)

    def discard(self, state: RequestState) -> None:
        """Removes a request that was cancelled."""
        priority = state.request.priority
        del self._live[state.request_id]
        self._classes[priority] -= 1
        self.prefill_tokens -= state.canvas_start
        self.blocks_left -= state.blocks_left
        self.deadlines -= state.request.deadline_seconds is not None
        if not self._classes[priority]:
            del self._classes[priority], self._heaps[priority]
        elif len(self._heaps[priority]) > 2 * self._classes[priority] + 32:
            self._heaps[priority] = [entry for entry in self._heaps[priority] if self._waits(entry)]
            heapify(self._heaps[priority])

    def admitted(self, state: RequestState) -> None:
        """Removes a request that got a slot."""
        self._admissions += 1
        self.discard(state)

    def candidates(self, order: RefreshOrder, limit: int) -> Generator[RequestState, None, None]:
        """Up to about `limit` requests, the one to admit first first; close it when done.

        Admitting a candidate while iterating is fine; the others stay queued.
        """
        oldest = self._oldest
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
        return [entry[2] for entry in islice(self._live.values(), limit)]

    def by_slack(self, limit: int) -> Generator[RequestState, None, None]:
        """Up to `limit` requests by priority, then slack."""
        seen: list[_Entry] = []
        try:
            for priority in sorted(self._heaps):
                while len(seen) < limit and (entry := self._head(priority)) is not None:
                    heappop(self._heaps[priority])
                    seen.append(entry)
                    yield entry[2]
        finally:
            for entry in seen:
                if self._waits(entry):
                    heappush(self._heaps[entry[2].request.priority], entry)

    def _head(self, priority: int) -> _Entry | None:
        """The class's most urgent entry; entries of requests that left are dropped on the way."""
        heap = self._heaps.get(priority)
        while heap:
            if self._waits(heap[0]):
                return heap[0]
            heappop(heap)
        return None

    @property
    def _oldest(self) -> RequestState | None:
        entry = next(iter(self._live.values()), None)
        return None if entry is None else entry[2]

    def _waits(self, entry: _Entry) -> bool:
        return self._live.get(entry[2].request_id) is entry
