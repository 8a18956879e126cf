"""What becomes of the answers that this gateway works at, event by event, for those who ask why.

Recorded in memory, bounded, and nothing waits for it. See easel.cluster.timeline_reports for how
other gateways come to know it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from easel.cluster.cluster_state import AnswerState, AnswerSummary, Json, StoredTimeline, TimelinePart
from easel.cluster.errors import ClusterError
from easel.cluster.gateway.choice import Choice
from easel.cluster.gateway.errors import ApiError
from easel.cluster.gateway.statistics import block_of, ms_of
from easel.cluster.timeline_store import merged
from easel.scheduler.errors import SchedulerError
from easel.scheduler.messages import BlockEvent

KEPT = 256  # answers of one gateway
MOST_EVENTS = 256  # of one answer; later blocks are counted, not listed
MOST_REPORTED = 2000  # events in one report, so that it takes the event loop a few milliseconds at most


@dataclass(slots=True)
class Timeline:
    """One answer, as far as this gateway knows."""

    summary: AnswerSummary  # without the counts
    began_at: float  # monotonic
    events: list[Json] = field(default_factory=list[Json])
    fresh: set[int] = field(default_factory=set[int])  # choices placed, and no block since
    reported: int = 0  # events that the scheduler has
    changed: bool = True  # in its counts, since it was reported
    blocks: int = 0
    tokens: int = 0
    steps: int = 0

    def count(self, event: BlockEvent) -> None:
        """One more block."""
        self.blocks += 1
        self.tokens += len(event.tokens)
        self.steps += event.steps
        self.changed = True


class Timelines:
    """Belongs to one event loop. Answers that are not known are passed over, never an error."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock  # seconds, monotonic
        self.wall = wall  # seconds since the Unix epoch
        self._kept: OrderedDict[str, Timeline] = OrderedDict()

    def begin(self, answer_id: str, tenant: str, began: float, trace_id: str | None = None) -> None:
        """A new answer, received at the wall clock's `began`."""
        self._open(AnswerSummary(answer_id, tenant, began, trace_id=trace_id))
        self._note(answer_id, "received")

    def drive(
        self,
        answer_id: str,
        tenant: str,
        began: float,
        choices: Sequence[Choice],
        trace_id: str | None = None,
    ) -> None:
        """This gateway works at the answer now, perhaps after another one, or after a pause."""
        line = self._kept.get(answer_id)
        if line is not None and line.summary.state is AnswerState.RUNNING:
            return
        if line is None:
            line = self._open(AnswerSummary(answer_id, tenant, began, trace_id=trace_id))
        line.summary = replace(line.summary, state=AnswerState.RUNNING)
        line.blocks = line.tokens = line.steps = 0
        for choice in choices:
            for event in choice.events:
                line.count(event)
        self._note(answer_id, "resumed", blocks=line.blocks)

    def seconds(self, answer_id: str) -> float:
        """Since the answer began; 0 for one that is not known."""
        line = self._kept.get(answer_id)
        return 0.0 if line is None else self._at(line)

    def leave(self, answer_id: str) -> None:
        """Another gateway works at it now, and tells what becomes of it."""
        self._kept.pop(answer_id, None)

    def placed(self, request_id: str, replica_id: str, attempt: int) -> None:
        """See easel.cluster.placement_watch."""
        answer_id, choice = _choice_of(request_id)
        line = self._kept.get(answer_id)
        if line is not None:
            line.summary = replace(line.summary, replica=replica_id)
            line.fresh.add(choice)
            self._note(answer_id, "placed", choice=choice, replica=replica_id, attempt=attempt)

    def left(self, request_id: str, replica_id: str, how: str) -> None:
        """See easel.cluster.placement_watch."""
        answer_id, choice = _choice_of(request_id)
        self._note(answer_id, how, choice=choice, replica=replica_id)

    def block(self, answer_id: str, choice: Choice, event: BlockEvent) -> None:
        """A committed block; to be told before the choice takes it."""
        line = self._kept.get(answer_id)
        if line is None:
            return
        if not choice.events or choice.index in line.fresh:
            line.fresh.discard(choice.index)
            prefilled = self._at(line) - event.seconds
            self._add(line, prefilled, "prefilled", _prefill_of(choice, event))
        line.count(event)
        if len(line.events) < MOST_EVENTS:
            self._note(answer_id, "block", **block_of(choice.index, event), tightened=event.tightened)

    def finished(self, answer_id: str, choices: Sequence[Choice]) -> None:
        """Every choice has ended."""
        if self._end(answer_id, AnswerState.FINISHED):
            for choice in choices:
                reason = None if choice.finish is None else choice.finish.value
                self._note(answer_id, "finished", choice=choice.index, reason=reason)

    def cancelled(self, answer_id: str, reason: str) -> None:
        """Nobody wants it any more."""
        if self._end(answer_id, AnswerState.CANCELLED):
            self._note(answer_id, "cancelled", reason=reason)

    def failed(self, answer_id: str, error: BaseException) -> None:
        """It came to its end before its last block."""
        if self._end(answer_id, AnswerState.FAILED):
            self._note(answer_id, "failed", reason=reason_of(error))

    def summaries(self) -> list[AnswerSummary]:
        """Of all tenants, in no order."""
        return [self._now(line) for line in self._kept.values()]

    def timeline(self, answer_id: str) -> StoredTimeline | None:
        """What is known here, in the order of time."""
        line = self._kept.get(answer_id)
        return None if line is None else StoredTimeline(self._now(line), tuple(merged([line.events])))

    def unreported(self, most: int = MOST_REPORTED) -> tuple[TimelinePart, ...]:
        """What the scheduler does not have, `most` events of it; `reported` is to be called once it has."""
        parts: list[TimelinePart] = []
        for line in self._kept.values():
            if most > 0 and (line.changed or line.reported < len(line.events)):
                events = tuple(line.events[line.reported : line.reported + most])
                parts.append(TimelinePart(self._now(line), line.reported, events))
                line.changed = False
                most -= len(events)
        return tuple(parts)

    def reported(self, parts: Sequence[TimelinePart]) -> None:
        """The scheduler has these."""
        for part in parts:
            line = self._kept.get(part.summary.answer_id)
            if line is not None:
                line.reported = part.first + len(part.events)

    def report_anew(self) -> None:
        """The scheduler has nothing."""
        for line in self._kept.values():
            line.reported = 0

    def _open(self, summary: AnswerSummary) -> Timeline:
        since = max(0.0, self.wall() - summary.began)
        line = self._kept[summary.answer_id] = Timeline(summary, self._clock() - since)
        self._kept.move_to_end(summary.answer_id)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return line

    def _end(self, answer_id: str, state: AnswerState) -> bool:
        """Whether that was its end: the first one counts."""
        line = self._kept.get(answer_id)
        if line is None or line.summary.state is not AnswerState.RUNNING:
            return False
        line.summary = replace(self._now(line), state=state)
        return True

    def _note(self, answer_id: str, kind: str, **about: object) -> None:
        line = self._kept.get(answer_id)
        if line is not None:
            self._add(line, self._at(line), kind, about)

    def _add(self, line: Timeline, at: float, kind: str, about: Json) -> None:
        line.events.append({"at": round(max(0.0, at), 6), "kind": kind, **about})

    def _at(self, line: Timeline) -> float:
        return self._clock() - line.began_at

    def _now(self, line: Timeline) -> AnswerSummary:
        running = line.summary.state is AnswerState.RUNNING
        seconds = round(self._at(line), 6) if running else line.summary.seconds
        return replace(
            line.summary, seconds=seconds, blocks=line.blocks, tokens=line.tokens, steps=line.steps
        )


def reason_of(error: BaseException) -> str:
    """Why an answer failed, in the words that its client was told."""
    if isinstance(error, ApiError):
        return error.message
    return str(error) if isinstance(error, SchedulerError | ClusterError) else "internal error"


def _prefill_of(choice: Choice, event: BlockEvent) -> Json:
    return {
        "choice": choice.index,
        "queue_ms": ms_of(event.queue_seconds),
        "prefill_ms": ms_of(event.prefill_seconds),
        "cached_tokens": event.cached_tokens,
    }


def _choice_of(request_id: str) -> tuple[str, int]:
    """A request's id is its answer's and the choice's index."""
    answer_id, _, index = request_id.rpartition("-")
    return answer_id, int(index) if index.isdigit() else 0
