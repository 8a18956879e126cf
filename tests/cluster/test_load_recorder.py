import json
from collections.abc import Iterator
from dataclasses import astuple
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from easel.cluster.bench_view import run_load
from easel.cluster.chat_client import ChatFailed
from easel.cluster.errors import ConfigError
from easel.cluster.load_recorder import (
    LoadPlan,
    LoadRecorder,
    Question,
    as_thresholds,
    header_of,
    known_questions,
)
from easel.scheduler.messages import CostCoefficients
from easel.scheduler.trace import Trace, read_trace

LOAD = {"slots": 4, "pages": 64, "page_size": 8, "block_length": 4, "cost": [1e-3, 2e-5, 3e-9, 4e-6]}
HEALTH = {"model": "demo", "load": {"a": LOAD, "b": LOAD | {"cost": [3e-3, 4e-5, 5e-9, 6e-6]}}}
QUESTIONS = (Question("sort ba", "ab"), Question("add 1+1", "02"))


class FakeCluster:
    """Answers every question with two blocks, and remembers what it was asked."""

    def __init__(self, answers: dict[str, str], status: int = 200) -> None:
        self.answers = answers
        self.status = status
        self.asked: list[dict[str, Any]] = []

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            return httpx.Response(200, json=HEALTH)
        body: dict[str, Any] = json.loads(request.content)
        self.asked.append(body)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "no"}})
        return httpx.Response(200, content="".join(self._events(body)))

    def _events(self, body: dict[str, Any]) -> Iterator[str]:
        text = self.answers[body["messages"][0]["content"]]
        first = {"choices": [{"delta": {"content": text[:1]}}]}
        diffusion = {
            "queue_ms": 5.0,
            "prefill_ms": 2.0,
            "cached_tokens": 0,
            "finish": [{"steps": 3, "tokens": 1, "ms": 7.0}, {"steps": 1, "tokens": 1, "ms": 2.0}],
        }
        last = {
            "choices": [{"delta": {"content": text[1:]}}],
            "usage": {"prompt_tokens": 9},
            "diffusion": diffusion,
        }
        yield f"data: {json.dumps(first)}\n\n"
        yield f"data: {json.dumps(last)}\n\n"
        yield "data: [DONE]\n\n"


async def record(cluster: FakeCluster, plan: LoadPlan) -> tuple[Trace, LoadRecorder]:
    ticks = count()
    async with httpx.AsyncClient(transport=cluster.transport, base_url="http://cluster") as http:
        recorder = LoadRecorder(http, plan, QUESTIONS, clock=lambda: next(ticks) / 1000)
        return await recorder.record(), recorder


RIGHT = {"sort ba": "ab", "add 1+1": "02"}


@pytest.mark.parametrize("plan", [LoadPlan(12, clients=3), LoadPlan(12, rate=10_000.0)])
@pytest.mark.asyncio
async def test_every_request_is_recorded_block_by_block(plan: LoadPlan) -> None:
    trace, recorder = await record(FakeCluster(RIGHT), plan)
    assert len(trace.requests) == 12
    assert recorder.failures == []
    assert {request.client for request in trace.requests} <= (set(range(3)) if plan.rate == 0 else {-1})
    for request in trace.requests:
        assert [(block.steps, block.tokens, block.seconds) for block in request.blocks] == [
            (3, 1, 0.007),
            (1, 1, 0.002),
        ]
        assert request.arrival < request.blocks[0].at < request.blocks[1].at
        assert (request.prompt_tokens, request.queue_seconds, request.prefill_seconds) == (9, 0.005, 0.002)
        assert request.correct


@pytest.mark.asyncio
async def test_wrong_answers_are_told_from_right_ones() -> None:
    trace, _ = await record(FakeCluster(RIGHT | {"sort ba": "ba"}), LoadPlan(20, clients=1))
    assert {request.correct for request in trace.requests} == {True, False}


@pytest.mark.asyncio
async def test_thresholds_are_drawn_per_request_and_repeat_with_the_seed() -> None:
    first, second = FakeCluster(RIGHT), FakeCluster(RIGHT)
    plan = LoadPlan(16, clients=1, thresholds=(0.5, 1.0))
    for cluster in (first, second):
        await record(cluster, plan)
    assert first.asked == second.asked
    assert {body["diffusion"]["threshold"] for body in first.asked} == {0.5, 1.0}


@pytest.mark.asyncio
async def test_the_header_holds_the_replicas_mean_costs() -> None:
    trace, _ = await record(FakeCluster(RIGHT), LoadPlan(1))
    header = trace.header
    assert (header.replicas, header.slots, header.block_length, header.model) == (2, 4, 4, "demo")
    assert header.cost is not None
    assert astuple(header.cost) == pytest.approx(astuple(CostCoefficients(2e-3, 3e-5, 4e-9, 5e-6)))


def test_a_cluster_that_reports_no_costs_has_none_in_the_header() -> None:
    header = header_of({"model": "demo", "load": {"a": {"slots": 2}}})
    assert (header.cost, header.slots, header.replicas) == (None, 2, 1)


@pytest.mark.asyncio
async def test_a_load_that_nobody_answers_is_an_error_that_says_why() -> None:
    with pytest.raises(ChatFailed, match="503"):
        await record(FakeCluster(RIGHT, status=503), LoadPlan(2))


def test_the_load_is_printed_and_written(tmp_path: Path) -> None:
    answers = {question.prompt: question.answer for question in known_questions()}
    file, console = tmp_path / "trace.jsonl", Console(record=True, width=200)
    cluster = FakeCluster(answers)
    run_load("http://cluster", "a-key", LoadPlan(8, clients=2), file, console, cluster.transport)
    printed = console.export_text()
    assert "8 of 8 answers are right" in printed
    assert "first block" in printed
    with file.open() as lines:
        assert len(read_trace(lines).requests) == 8


@pytest.mark.parametrize("text", ["x", "0.5;0.7", "2", "-0.1"])
def test_thresholds_must_be_probabilities(text: str) -> None:
    with pytest.raises(ConfigError, match="thresholds"):
        as_thresholds(text)


def test_no_thresholds_leave_the_models_own() -> None:
    assert as_thresholds("") == ()
    assert as_thresholds("0.9, 1") == (0.9, 1.0)
