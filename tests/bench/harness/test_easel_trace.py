from dataclasses import astuple, replace
from typing import Any

import pytest

from easel.bench.harness.easel_trace import header_of, request_trace, trace_of
from easel.bench.harness.errors import NoServer
from easel.scheduler.messages import CostCoefficients
from easel.scheduler.trace import BlockTrace, read_trace, write_trace
from tests.bench.harness.fakes import LOAD, a_record

HEALTH: dict[str, Any] = {
    "model": "demo",
    "load": {"a": LOAD, "b": LOAD | {"cost": [3e-3, 4e-5, 5e-9, 6e-6]}},
}


def test_a_request_is_recorded_block_by_block() -> None:
    trace = request_trace(replace(a_record(3, due=2.0), sent=2.5, client=1))
    assert trace.blocks == (BlockTrace(2.1, 4, 8, 0.05), BlockTrace(2.3, 4, 8, 0.05))
    assert (trace.request_id, trace.arrival, trace.client) == ("request-3", 2.5, 1)
    assert (trace.prompt_tokens, trace.max_tokens, trace.cached_tokens) == (20, 64, 5)
    assert (trace.queue_seconds, trace.prefill_seconds, trace.correct) == (0.01, 0.02, True)


def test_a_later_turn_of_a_chat_is_a_request_of_its_own() -> None:
    assert request_trace(replace(a_record(3), turn=2)).request_id == "request-3-2"


def test_the_header_holds_the_replicas_mean_costs() -> None:
    header = header_of(HEALTH)
    assert (header.replicas, header.slots, header.block_length, header.model) == (2, 4, 4, "demo")
    assert header.cost is not None
    assert astuple(header.cost) == pytest.approx(astuple(CostCoefficients(2e-3, 3e-5, 4e-9, 5e-6)))


def test_a_cluster_that_reports_no_costs_has_none_in_the_header() -> None:
    header = header_of({"model": "demo", "load": {"a": {"slots": 2}}})
    assert (header.cost, header.slots, header.replicas) == (None, 2, 1)


def test_only_answered_requests_are_in_the_trace_in_the_order_of_arrival() -> None:
    records = [a_record(1, 3.0), a_record(0, 1.0), a_record(2, 2.0, error="timeout")]
    trace = trace_of("http://x", HEALTH, records)
    assert [request.request_id for request in trace.requests] == ["request-0", "request-1"]
    assert read_trace(write_trace(trace).splitlines()) == trace


def test_a_server_that_tells_no_blocks_cannot_be_recorded() -> None:
    with pytest.raises(NoServer, match="diffusion"):
        trace_of("http://x", HEALTH, [replace(a_record(), canvases=None)])
