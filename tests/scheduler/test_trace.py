import json
from copy import copy

import pytest

from easel.scheduler.messages import CostCoefficients
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.sim_work import Replay, SimulatedRequest
from easel.scheduler.trace import (
    BlockTrace,
    BrokenTrace,
    RequestTrace,
    Trace,
    TraceHeader,
    read_trace,
    write_trace,
)

HEADER = TraceHeader(
    2, 4, 64, 8, 4, SequenceLayout.CAUSAL, CostCoefficients(1e-3, 2e-5, 3e-9, 4e-6), 0.1, "demo"
)


def trace_of(name: str, arrival: float, *at: float, client: int = -1) -> RequestTrace:
    blocks = tuple(BlockTrace(moment, 3, 4, 0.02) for moment in at)
    return RequestTrace(name, arrival, 10, 32, blocks, 0.01, 0.02, client=client, correct=True)


def test_a_trace_is_read_as_it_was_written() -> None:
    trace = Trace(HEADER, (trace_of("a", 0.5, 1.0, 1.5), trace_of("b", 0.7, 2.0, client=3)))
    assert read_trace(write_trace(trace).splitlines()) == trace


def test_requests_are_read_in_the_order_of_arrival() -> None:
    lines = write_trace(Trace(HEADER, (trace_of("b", 2.0, 3.0), trace_of("a", 1.0, 3.0)))).splitlines()
    assert [request.request_id for request in read_trace(lines).requests] == ["a", "b"]


def test_fields_that_are_not_known_are_passed_over() -> None:
    header, line = write_trace(Trace(HEADER, (trace_of("a", 0.0, 1.0),))).splitlines()
    more = json.dumps(json.loads(line) | {"colour": "blue"})
    assert read_trace([header, more]).requests[0].request_id == "a"


HEAD, LINE = write_trace(Trace(HEADER, (trace_of("a", 0.0, 1.0),))).splitlines()


@pytest.mark.parametrize(
    ("lines", "line", "problem"),
    [
        ([], 1, "empty"),
        (["{}", LINE], 1, "format"),
        (["no json", LINE], 1, "not JSON"),
        (["[]", LINE], 1, "not a JSON object"),
        ([json.dumps(json.loads(HEAD) | {"layout": "round"}), LINE], 1, "round"),
        ([HEAD], 2, "no request"),
        ([HEAD, "{}"], 2, "blocks"),
        ([HEAD, LINE, json.dumps(json.loads(LINE) | {"blocks": []})], 3, "no block"),
    ],
)
def test_a_broken_line_is_named(lines: list[str], line: int, problem: str) -> None:
    with pytest.raises(BrokenTrace, match=problem) as caught:
        read_trace(lines)
    assert caught.value.line == line


def test_the_error_crosses_processes() -> None:
    error = BrokenTrace(3, "why")
    assert str(copy(error)) == str(error)


def test_times_of_a_request_follow_from_its_blocks() -> None:
    trace = trace_of("a", 1.0, 2.0, 2.5, 4.0)
    assert (trace.first_block_seconds, trace.seconds, trace.gaps, trace.tokens) == (1.0, 3.0, (0.5, 1.5), 12)
    assert trace.overhead_seconds == pytest.approx(3.0 - 0.01 - 0.02 - 3 * 0.02)


def _arrivals(replay: Replay) -> list[SimulatedRequest]:
    found: list[SimulatedRequest] = []
    following = replay.first()
    while following is not None:
        found.append(following)
        following = replay.following(following)
    return found


def test_an_open_loop_is_replayed_at_its_times() -> None:
    found = _arrivals(Replay([trace_of("a", 5.0, 6.0), trace_of("b", 5.5, 7.0)]))
    assert [(one.request.request_id, one.arrival) for one in found] == [("a", 0.0), ("b", 0.5)]
    assert [(block.steps, block.tokens) for block in found[0].blocks] == [(3, 4)]
    assert len(found[0].request.prompt) == 10


def test_a_client_is_replayed_with_its_pauses() -> None:
    replay = Replay([trace_of("a", 1.0, 2.0, client=0), trace_of("b", 2.25, 3.0, client=0)])
    assert [one.request.request_id for one in _arrivals(replay)] == ["a"]
    second = replay.after(0, 9.0)
    assert second is not None
    assert (second.request.request_id, second.arrival, second.client) == ("b", 9.25, 0)
    assert replay.after(0, 10.0) is None
