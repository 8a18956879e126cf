"""GET /cluster and /cluster/requests/{id}: the contract, and who may see what."""

import asyncio
from dataclasses import dataclass, field, replace

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider

from easel.cluster.cluster_state import (
    AnswerState,
    AnswerSummary,
    ClusterState,
    Fault,
    FaultKind,
    ReplicaState,
    StoredTimeline,
)
from easel.cluster.errors import NoReplica, SchedulerLost
from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.cluster_json import LISTED
from easel.cluster.gateway.cluster_view import FRESH_SECONDS, ClusterView
from easel.cluster.gateway.observation import Observation
from easel.cluster.gateway.settings import GatewaySettings, Sources
from easel.cluster.gateway.timelines import Timelines
from easel.cluster.telemetry import Telemetry
from easel.cluster.tracing import Tracing
from easel.scheduler.messages import StepSample
from tests.cluster.gateway.fakes import (
    CHAT,
    MODEL,
    FakeBackend,
    Ticks,
    byte_tokenizer,
    client_of,
    get,
    model_info,
    post,
    saying,
)
from tests.fakes import digest

pytestmark = pytest.mark.asyncio

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
SAMPLE = StepSample(9120, 64, 128, 0.0041, 0.0044)
EMPTY = ClusterState("ok", 0, 0, (), (), ())


@dataclass(slots=True)
class FakeSource:
    """A cluster that can be away."""

    whole: ClusterState = EMPTY
    timelines: dict[str, StoredTimeline] = field(default_factory=dict[str, StoredTimeline])
    away: bool = False
    asked: int = 0

    async def state(self) -> ClusterState:
        self.asked += 1
        if self.away:
            raise SchedulerLost(0.0)
        return self.whole

    async def timeline(self, answer_id: str) -> StoredTimeline | None:
        return self.timelines.get(answer_id)


@dataclass(slots=True)
class World:
    """A gateway with a cluster behind it, under a clock that is moved by hand."""

    source: FakeSource = field(default_factory=FakeSource)
    backend: FakeBackend = field(default_factory=lambda: saying("yes"))
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    now: float = 0.0

    def app(self) -> FastAPI:
        timelines = Timelines(lambda: self.now, lambda: 1000.5)
        view = ClusterView(timelines, lambda: self.now, self.source)
        sources = Sources(Ticks(), wall=lambda: 1000.5, new_id=lambda: "id", new_seed=lambda: 7)
        return build_gateway(self.backend, model_info(), byte_tokenizer(), self.settings, sources, view=view)


def summary(answer_id: str, tenant: str = "", began: float = 900.0) -> AnswerSummary:
    return AnswerSummary(answer_id, tenant, began, AnswerState.FINISHED, 0.4, 3, 70, 20, "r1")


async def ask(app: FastAPI, key: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with client_of(app) as client:
        return await client.post(CHAT, json=BODY, headers=headers)


async def test_the_whole_cluster_is_one_object() -> None:
    world = World()
    replica = ReplicaState(replace(digest("r1"), policy_epoch=17), True, 0.2, (SAMPLE,))
    fault = Fault(990.0, FaultKind.REPLICA_LOST, "r0")
    world.source.whole = ClusterState("ok", 3, 1, (replica,), (fault,), (summary("chatcmpl-1"),))
    assert (await get(world.app(), "/cluster")).json() == {
        "time": 1000.5,
        "model": MODEL,
        "journal": "ok",
        "waiting": 3,
        "lost_replicas": 1,
        "replicas": [
            {
                "id": "r1",
                "state": "draining",
                "slots": 4,
                "slots_used": 0,
                "pages": 400,
                "pages_available": 400,
                "waiting": 0,
                "block_length": 4,
                "page_size": 8,
                "policy_epoch": 17,
                "policy_age_seconds": 0.2,
                "steps_per_block": 4.0,
                "step_seconds": 0.01,
                "cost_error": 0.0,
                "blocks": 0,
                "committed_tokens": 0,
                "preemptions": 0,
                "strip": [{"step": 9120, "refresh": 64, "reuse": 128, "predicted_ms": 4.1, "actual_ms": 4.4}],
            }
        ],
        "faults": [{"time": 990.0, "kind": "replica_lost", "replica": "r0"}],
        "requests": [
            {
                "id": "chatcmpl-1",
                "state": "finished",
                "began": 900.0,
                "seconds": 0.4,
                "blocks": 3,
                "tokens": 70,
                "steps": 20,
                "replica": "r1",
            }
        ],
    }


async def test_a_request_is_listed_and_its_timeline_told() -> None:
    app = World().app()
    answer_id = (await ask(app)).json()["id"]
    (listed,) = (await get(app, "/cluster")).json()["requests"]
    timeline = (await get(app, f"/cluster/requests/{answer_id}")).json()
    assert (listed["id"], listed["state"], listed["tokens"]) == (answer_id, "finished", 3)
    assert (timeline["id"], timeline["state"]) == (answer_id, "finished")
    kinds = [event["kind"] for event in timeline["events"]]
    assert kinds == ["received", "prefilled", "block", "finished"]
    assert timeline["events"][-1]["reason"] == "stop"


async def test_a_request_that_is_traced_names_its_trace() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    tracing = Tracing(provider.get_tracer("test"), provider, provider)
    observation = Observation(Telemetry(tracing=tracing))
    app = build_gateway(saying("x"), model_info(), byte_tokenizer(), observation=observation)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    answer_id = (await post(app, CHAT, BODY, traceparent=f"00-{trace_id}-b7ad6b7169203331-01")).json()["id"]
    assert (await get(app, f"/cluster/requests/{answer_id}")).json()["trace_id"] == trace_id


async def test_a_request_that_is_refused_is_listed_with_the_reason() -> None:
    world = World(backend=FakeBackend(lambda _: [NoReplica(30.0)]))
    app = world.app()
    refused = await ask(app)
    (listed,) = (await get(app, "/cluster")).json()["requests"]
    timeline = (await get(app, f"/cluster/requests/{listed['id']}")).json()
    assert (refused.status_code, listed["state"]) == (503, "failed")
    assert timeline["events"][-1]["reason"] == refused.json()["error"]["message"]


async def test_a_request_whose_client_leaves_is_cancelled() -> None:
    world = World(backend=FakeBackend(saying("yes").script, hold_after=0))
    app = world.app()
    asking = asyncio.create_task(ask(app))
    await world.backend.holding.wait()
    assert (await get(app, "/cluster")).json()["requests"][0]["state"] == "running"
    asking.cancel()
    await asyncio.wait([asking])
    world.now += 1.0
    assert (await get(app, "/cluster")).json()["requests"][0]["state"] == "cancelled"


async def test_a_tenant_sees_its_own_requests_only_and_nobody_without_a_key() -> None:
    world = World(settings=GatewaySettings(api_keys=("one", "two")))
    app = world.app()
    answer_id = (await ask(app, "one")).json()["id"]
    path = f"/cluster/requests/{answer_id}"
    for key, seen in (("one", 1), ("two", 0)):
        headers = {"authorization": f"Bearer {key}"}
        assert len((await get(app, "/cluster", **headers)).json()["requests"]) == seen
        answer = await get(app, path, **headers)
        assert answer.status_code == (200 if seen else 404)
    assert (await get(app, "/cluster")).status_code == 401
    assert (await get(app, path)).status_code == 401


async def test_what_other_gateways_did_is_shown_too_and_a_gateway_s_own_knowledge_is_newer() -> None:
    world = World()
    answer_id = "chatcmpl-id"
    stale = replace(summary(answer_id, began=1000.5), state=AnswerState.RUNNING)
    other = StoredTimeline(summary("chatcmpl-other"), ({"at": 0.0, "kind": "received"},))
    world.source.whole = replace(EMPTY, answers=(stale, other.summary))
    world.source.timelines["chatcmpl-other"] = other
    app = world.app()
    assert (await ask(app)).json()["id"] == answer_id
    listed = (await get(app, "/cluster")).json()["requests"]
    assert [(one["id"], one["state"]) for one in listed] == [
        (answer_id, "finished"),
        ("chatcmpl-other", "finished"),
    ]
    timeline = (await get(app, "/cluster/requests/chatcmpl-other")).json()
    assert timeline["events"] == [{"at": 0.0, "kind": "received"}]


async def test_the_newest_requests_are_listed() -> None:
    world = World()
    answers = tuple(summary(str(index), began=float(index)) for index in range(2 * LISTED))
    world.source.whole = replace(EMPTY, answers=answers)
    listed = (await get(world.app(), "/cluster")).json()["requests"]
    assert [one["id"] for one in listed] == [str(index) for index in reversed(range(LISTED, 2 * LISTED))]


async def test_an_unknown_request_is_404_in_openai_s_shape() -> None:
    answer = await get(World().app(), "/cluster/requests/nobody")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "request_not_found")


async def test_while_the_scheduler_is_away_the_answer_is_503_with_advice_to_retry() -> None:
    world = World(source=FakeSource(away=True))
    answer = await get(world.app(), "/cluster")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_however_many_look_on_the_scheduler_is_asked_once_in_a_while() -> None:
    world = World()
    app = world.app()
    await asyncio.gather(*(get(app, "/cluster") for _ in range(20)))
    assert world.source.asked == 1
    world.now += FRESH_SECONDS
    await get(app, "/cluster")
    assert world.source.asked == 2


async def test_a_gateway_on_its_own_shows_what_it_can() -> None:
    timelines = Timelines(lambda: 0.0, lambda: 1000.0)
    shown = await ClusterView(timelines, lambda: 0.0).cluster("", MODEL)
    assert (shown["journal"], shown["replicas"], shown["requests"]) == ("off", [], [])


@pytest.mark.parametrize(("ready", "status", "said"), [(True, 200, "success"), (False, 503, None)])
async def test_kuberay_s_probe_follows_readiness(ready: bool, status: int, said: str | None) -> None:
    backend = saying("x")
    backend.is_ready = ready
    answer = await get(World(backend=backend).app(), "/-/healthz")
    assert answer.status_code == status
    assert said is None or answer.text == said


async def test_the_routes_are_named_as_serve_s_proxies_name_them() -> None:
    assert (await get(World().app(), "/-/routes")).json() == {"/": "easel"}


async def test_probes_need_no_key() -> None:
    app = World(settings=GatewaySettings(api_keys=("key",))).app()
    assert (await get(app, "/-/healthz")).status_code == 200
    assert (await get(app, "/-/routes")).status_code == 200
