"""One trace for each request, over gateway, scheduler and workers, as a collector receives it."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from unittest.mock import ANY

import httpx
import pytest

from easel.cluster.config_sections import TelemetrySection
from easel.cluster.dispatch import RayBackend
from easel.cluster.errors import ConfigError
from easel.cluster.gateway.answer_content import AnswerContent
from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.observation import Observation
from easel.cluster.journal_writer import JournalWriter
from easel.cluster.span_names import ATTRIBUTES, EVENTS, SPANS
from easel.cluster.telemetry import Telemetry
from easel.cluster.tracing import (
    Tracing,
    check_collector,
    current_traceparent,
    start_tracing,
    task_context,
    traces_url,
)
from easel.cluster.work_spans import GenerationSpan, PlacementSpan
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import BlockEvent, GenerationTask, Placement
from tests.cluster.fakes import FakeJournal, FakeReplicas, FakeScheduler, a_request
from tests.cluster.gateway.fakes import CHAT, MODEL, byte_tokenizer, client_of, model_info
from tests.otlp import Collector, ReceivedSpan, collecting

pytestmark = pytest.mark.asyncio

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@dataclass(slots=True)
class TracedScheduler(FakeScheduler):
    """As the scheduler actor does it."""

    tracing: Tracing = field(default_factory=Tracing)

    async def place(self, ticket: AdmissionTicket) -> Placement:
        with PlacementSpan(self.tracing, ticket, waiting=2) as span:
            return span.placed(await FakeScheduler.place(self, ticket))


@dataclass(slots=True)
class TracedReplicas(FakeReplicas):
    """As worker replicas do it."""

    tracing: Tracing = field(default_factory=Tracing)

    async def generate(self, replica_id: str, task: GenerationTask) -> AsyncGenerator[BlockEvent, None]:
        with GenerationSpan(self.tracing, task, replica_id) as span:
            async for event in FakeReplicas.generate(self, replica_id, task):
                span.take(event)
                yield event


@dataclass(slots=True)
class World:
    """A cluster in one process, whose parts export as if they were processes of their own."""

    section: TelemetrySection
    replicas: TracedReplicas = field(init=False)
    scheduler: TracedScheduler = field(init=False)
    gateway: Tracing = field(init=False)

    def __post_init__(self) -> None:
        self.gateway = start_tracing(self.section, "gateway", "g")
        self.scheduler = TracedScheduler(["a", "b"], tracing=start_tracing(self.section, "scheduler", "s"))
        self.replicas = TracedReplicas(FakeJournal(), tracing=start_tracing(self.section, "worker", "w"))

    async def ask(self, body: dict[str, object] | None = None, /, **headers: str) -> httpx.Response:
        """One request; everything is exported when it returns."""
        journal = self.replicas.journal
        writer = JournalWriter(journal, lambda _: None)
        backend = RayBackend(self.scheduler, self.replicas, journal, writer, page_size=None)
        observation = Observation(Telemetry(self.section, self.gateway))
        app = build_gateway(backend, model_info(), byte_tokenizer(), observation=observation)
        async with client_of(app) as client:
            answer = await client.post(CHAT, json=BODY | (body or {}), headers=headers)
        for tracing in (self.gateway, self.scheduler.tracing, self.replicas.tracing):
            await asyncio.to_thread(tracing.stop)
        return answer


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as there:
        yield there


def world_of(collector: Collector, **settings: object) -> World:
    everything = {"otlp_endpoint": collector.url, "sample_ratio": 1.0}
    return World(TelemetrySection.model_validate({**everything, **settings}))


def one(collector: Collector, name: str) -> ReceivedSpan:
    (found,) = (span for span in collector.spans if span.name == name)
    return found


async def test_a_request_is_one_trace_below_the_clients_span(collector: Collector) -> None:
    answer = await world_of(collector).ask(**SAMPLED)
    root = one(collector, f"chat {MODEL}")
    place, work = one(collector, "easel.place"), one(collector, "easel.generate")
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert [span.parent_id for span in (root, place, work)] == [PARENT, root.span_id, root.span_id]
    assert [span.process for span in (root, place, work)] == ["gateway", "scheduler", "worker"]
    assert place.attributes["easel.replica"] == work.attributes["easel.replica"] == "a"
    assert answer.headers["traceparent"] == f"00-{TRACE}-{root.span_id}-01"


async def test_blocks_and_what_was_before_them_are_events_of_the_workers_span(collector: Collector) -> None:
    await world_of(collector).ask()
    work = one(collector, "easel.generate")
    assert [name for name, _ in work.events] == ["easel.slot", "easel.canvas", *["easel.block"] * 3]
    block = work.events[3][1]
    assert (block["easel.block.index"], block["easel.block.steps"], block["easel.block.tokens"]) == (1, 2, 4)
    assert block["easel.block.mean_entropy"] == pytest.approx(0.1)
    assert (work.attributes["easel.steps"], work.attributes["easel.finish"]) == (6, "length")


async def test_the_root_says_what_the_request_cost_by_the_conventions_names(collector: Collector) -> None:
    answer = (await world_of(collector).ask({"n": 2, "max_tokens": 24})).json()
    said = one(collector, f"chat {MODEL}").attributes
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == MODEL
    assert said["gen_ai.response.id"] == answer["id"]
    assert said["gen_ai.usage.input_tokens"] == answer["usage"]["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"]
    assert said["gen_ai.response.finish_reasons"] == ("length", "length")
    assert (said["gen_ai.request.max_tokens"], said["gen_ai.request.choice.count"]) == (24, 2)
    assert said["http.response.status_code"] == 200


async def test_a_fail_over_is_a_second_workers_span_in_the_same_trace(collector: Collector) -> None:
    world = world_of(collector)
    world.replicas.dies_after["a"] = 1
    assert (await world.ask(**SAMPLED)).status_code == 200
    root = one(collector, f"chat {MODEL}")
    assert root.events == [
        ("easel.moved", {"easel.request.id": ANY, "easel.replica": "a", "easel.moved.reason": "replica_lost"})
    ]
    for name in ("easel.place", "easel.generate"):
        spans = [span for span in collector.spans if span.name == name]
        assert {span.attributes["easel.replica"] for span in spans} == {"a", "b"}
        assert {(span.trace_id, span.parent_id) for span in spans} == {(TRACE, root.span_id)}
    assert {span.attributes["easel.replica"] for span in collector.spans if span.failed} == {"a"}


async def test_nothing_is_said_that_is_not_documented(collector: Collector) -> None:
    world = world_of(collector)
    world.replicas.dies_after["a"] = 1
    await world.ask({"n": 2, "stream": True, "top_p": 0.5, "top_k": 3})
    events = [event for span in collector.spans for event in span.events]
    said = [*(span.attributes for span in collector.spans), *(about for _, about in events)]
    assert {name for attributes in said for name in attributes} <= ATTRIBUTES.keys()
    assert {span.name for span in collector.spans} - {f"chat {MODEL}"} <= SPANS.keys()
    assert {name for name, _ in events} == EVENTS.keys()
    assert not [text for attributes in said for text in attributes.values() if text == "hi"]


async def test_an_answer_that_another_gateway_takes_up_stays_in_its_trace() -> None:
    content = AnswerContent(MODEL, 0.0, 1, (a_request(),), traceparent=SAMPLED["traceparent"])
    read = AnswerContent.from_json(content.to_json())
    task = asyncio.create_task(said_within(), context=task_context(read.traceparent, "chatcmpl-1"))
    assert await task == SAMPLED["traceparent"]


async def said_within() -> str:
    """What a task that works for an answer tells those that it asks."""
    return current_traceparent()


@pytest.mark.parametrize(
    ("ratio", "headers", "traced"),
    [(0.0, {}, False), (1.0, {}, True), (0.0, SAMPLED, True), (1.0, NOT_SAMPLED, False)],
)
async def test_a_client_that_traces_decides_and_the_ratio_for_all_others(
    collector: Collector, ratio: float, headers: dict[str, str], traced: bool
) -> None:
    answer = await world_of(collector, sample_ratio=ratio).ask(**headers)
    assert bool(collector.spans) is traced
    assert int(answer.headers["traceparent"][-2:], 16) % 2 == traced  # the lowest flag says "sampled"


@pytest.mark.parametrize("given", ["nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
async def test_a_traceparent_that_is_none_begins_a_trace(collector: Collector, given: str) -> None:
    answer = await world_of(collector).ask(traceparent=given)
    assert answer.status_code == 200
    assert one(collector, f"chat {MODEL}").parent_id == ""


async def test_a_request_that_the_cluster_cannot_run_is_a_failed_span(collector: Collector) -> None:
    world = world_of(collector)
    world.replicas.dies_after |= {"a": 0, "b": 0}
    world.scheduler.replicas = ["a", "b", "c", "d", "e"]
    world.replicas.dies_after |= {"c": 0, "d": 0, "e": 0}
    answer = await world.ask()
    root = one(collector, f"chat {MODEL}")
    assert answer.status_code == root.attributes["http.response.status_code"] == 503
    assert root.failed
    assert root.attributes["error.type"] == "RetriesExhausted"


async def test_headers_and_service_name_are_as_configured(collector: Collector) -> None:
    settings = {"otlp_headers": "authorization=Bearer%20secret, x-team=blue", "service_name": "mine"}
    await world_of(collector, **settings).ask()
    assert collector.headers["authorization"] == "Bearer secret"
    assert collector.headers["x-team"] == "blue"
    assert {span.service for span in collector.spans} == {"mine"}


async def test_a_collector_that_is_away_costs_no_request_and_hardly_any_time(collector: Collector) -> None:
    world = World(TelemetrySection(otlp_endpoint="http://127.0.0.1:9"))
    async with asyncio.timeout(8.0):
        answer = await world.ask(**SAMPLED)
    assert answer.status_code == 200
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("https://collector/otlp/", "https://collector/otlp/v1/traces"),
        ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
    ],
)
async def test_an_endpoint_may_be_a_base_url(given: str, url: str) -> None:
    assert traces_url(given) == url


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"otlp_endpoint": "collector:4318"}, "telemetry.otlp_endpoint"),
        ({"otlp_endpoint": "grpc://collector:4317"}, "telemetry.otlp_endpoint"),
        ({"otlp_endpoint": "http://c", "otlp_headers": "secret-key"}, "telemetry.otlp_headers"),
    ],
)
async def test_a_collector_that_cannot_be_used_is_refused_by_the_settings_name(
    settings: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named) as refusal:
        check_collector(TelemetrySection.model_validate(settings))
    assert "secret-key" not in str(refusal.value)


async def test_without_an_endpoint_nothing_is_traced() -> None:
    answer = await World(TelemetrySection()).ask(**SAMPLED)
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers
