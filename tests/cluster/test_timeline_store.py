"""The scheduler actor's memory of answers, made of what gateways report."""

from dataclasses import replace

from easel.cluster.cluster_state import AnswerState, AnswerSummary, GatewayReport, Json, TimelinePart
from easel.cluster.timeline_store import KEPT, SILENT_SECONDS, TimelineStore


def event(at: float, kind: str = "received", **about: object) -> Json:
    return {"at": at, "kind": kind, **about}


def part(
    *events: Json, first: int = 0, answer_id: str = "a", state: AnswerState = AnswerState.RUNNING
) -> TimelinePart:
    return TimelinePart(AnswerSummary(answer_id, "tenant", 100.0, state), first, events)


def report(*parts: TimelinePart, gateway: str = "g") -> GatewayReport:
    return GatewayReport(gateway, parts)


def kinds(store: TimelineStore, answer_id: str = "a", now: float = 0.0) -> list[object]:
    timeline = store.timeline(answer_id, now)
    assert timeline is not None
    return [one["kind"] for one in timeline.events]


def test_parts_add_up_and_a_part_that_comes_twice_adds_nothing() -> None:
    store = TimelineStore()
    store.take(report(part(event(0.0))), 0.0)
    for _ in range(2):
        store.take(report(part(event(0.1, "placed"), event(0.2, "failed"), first=1)), 0.0)
    assert kinds(store) == ["received", "placed", "failed"]


def test_what_two_gateways_tell_is_one_timeline_with_each_block_once() -> None:
    store = TimelineStore()
    block = event(0.2, "block", choice=0, block=0)
    store.take(report(part(event(0.0), block)), 0.0)
    resumed = part(event(0.4, "resumed"), {**block, "at": 0.5}, event(0.6, "block", choice=0, block=1))
    store.take(report(resumed, gateway="h"), 0.0)
    assert kinds(store) == ["received", "block", "resumed", "block"]


def test_a_trace_is_known_wherever_its_answer_goes_on() -> None:
    store = TimelineStore()
    first = part(event(0.0))
    store.take(report(replace(first, summary=replace(first.summary, trace_id="trace"))), 0.0)
    store.take(report(part(event(0.4, "resumed")), gateway="h"), 0.0)
    assert [one.trace_id for one in store.summaries(0.0)] == ["trace"]


def test_an_answer_whose_gateway_has_fallen_silent_has_failed_until_another_one_has_it() -> None:
    store = TimelineStore()
    store.take(report(part(event(0.0))), 0.0)
    later = 2 * SILENT_SECONDS
    store.take(report(gateway="h"), later)
    assert [one.state for one in store.summaries(later)] == [AnswerState.FAILED]
    assert kinds(store, now=later) == ["received", "gateway_lost"]
    store.take(report(part(event(9.0, "resumed")), gateway="h"), later)
    assert [one.state for one in store.summaries(later)] == [AnswerState.RUNNING]
    assert kinds(store, now=later) == ["received", "resumed"]


def test_a_gateway_that_reports_nothing_new_is_not_silent() -> None:
    store = TimelineStore()
    store.take(report(part(event(0.0))), 0.0)
    store.take(report(), 2 * SILENT_SECONDS)
    assert [one.state for one in store.summaries(2 * SILENT_SECONDS)] == [AnswerState.RUNNING]


def test_the_oldest_answers_that_have_ended_are_forgotten_first() -> None:
    store = TimelineStore()
    store.take(report(part(answer_id="runs")), 0.0)
    for index in range(KEPT + 9):
        store.take(report(part(answer_id=str(index), state=AnswerState.FINISHED)), 0.0)
    assert len(store.summaries(0.0)) == KEPT
    assert store.timeline("runs", 0.0) is not None
    assert store.timeline("0", 0.0) is None
    assert store.timeline(str(KEPT + 8), 0.0) is not None


def test_gateways_that_are_long_gone_are_forgotten_too() -> None:
    store = TimelineStore()
    for index in range(3 * KEPT):
        store.take(report(gateway=str(index)), float(index))
    store.take(report(part(event(0.0)), gateway="last"), 0.0)
    assert [one.state for one in store.summaries(0.0)] == [AnswerState.RUNNING]
