"""Timelines of recent answers, from all gateways, as the scheduler actor keeps them.

They are in the actor rather than in the journal: the journal knows neither placements nor when
blocks came, and to write these there would cost each request an exchange and memory that answers
need. A timeline survives the gateway that wrote it, and the actor's own death too: whatever
gateways still have they send to its successor.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from easel.cluster.cluster_state import (
    AnswerState,
    AnswerSummary,
    GatewayReport,
    Json,
    StoredTimeline,
    TimelinePart,
)

KEPT = 200  # answers
SILENT_SECONDS = 10.0  # of a gateway, after which nobody works at its answers


@dataclass(slots=True)
class _Kept:
    """One answer, by the gateways that worked at it."""

    summary: AnswerSummary  # the last one that was reported
    gateway: str  # that reported it
    events: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])


class TimelineStore:
    """Belongs to one event loop. Times are of one monotonic clock."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._heard: dict[str, float] = {}  # gateway -> when

    def take(self, report: GatewayReport, now: float) -> None:
        """Add what a gateway reports. A report that comes twice adds nothing the second time."""
        self._heard.pop(report.gateway, None)
        self._heard[report.gateway] = now
        if len(self._heard) > KEPT:
            del self._heard[next(iter(self._heard))]
        for part in report.parts:
            self._add(report.gateway, part)
        while len(self._kept) > KEPT:
            del self._kept[self._oldest()]

    def summaries(self, now: float) -> tuple[AnswerSummary, ...]:
        """Of all tenants, in no order."""
        return tuple(self._summary(kept, now) for kept in self._kept.values())

    def timeline(self, answer_id: str, now: float) -> StoredTimeline | None:
        """None when it is not known, or forgotten."""
        kept = self._kept.get(answer_id)
        if kept is None:
            return None
        summary, events = self._summary(kept, now), merged(kept.events.values())
        if summary.state is not kept.summary.state:
            events.append({"at": summary.seconds, "kind": "gateway_lost"})
        return StoredTimeline(summary, tuple(events))

    def _add(self, gateway: str, part: TimelinePart) -> None:
        kept = self._kept.get(part.summary.answer_id)
        if kept is None:
            kept = self._kept[part.summary.answer_id] = _Kept(part.summary, gateway)
        trace_id = part.summary.trace_id or kept.summary.trace_id  # known where the request came in
        kept.summary, kept.gateway = replace(part.summary, trace_id=trace_id), gateway
        events = kept.events.setdefault(gateway, [])
        events[part.first :] = part.events

    def _summary(self, kept: _Kept, now: float) -> AnswerSummary:
        """An answer that is said to run in a gateway that says nothing any more has come to its end."""
        running = kept.summary.state is AnswerState.RUNNING
        if running and now - self._heard.get(kept.gateway, -inf) > SILENT_SECONDS:
            return replace(kept.summary, state=AnswerState.FAILED)
        return kept.summary

    def _oldest(self) -> str:
        """One that has ended, if there is any."""
        ended = (name for name, kept in self._kept.items() if kept.summary.state is not AnswerState.RUNNING)
        return next(ended, next(iter(self._kept)))


def merged(parts: Iterable[Sequence[Json]]) -> list[Json]:
    """All events in the order of their time; a block that two gateways tell of is there once."""
    events = sorted((event for part in parts for event in part), key=_at)
    blocks: set[object] = set()
    kept: list[Json] = []
    for event in events:
        if event["kind"] == "block":
            block = (event["choice"], event["block"])
            if block in blocks:
                continue
            blocks.add(block)
        kept.append(event)
    return kept


def _at(event: Json) -> float:
    return float(str(event["at"]))
