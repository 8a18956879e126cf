"""Responses that run without a client: whichever gateway dies, somebody drives them."""

import asyncio
import itertools

import openai
import pytest
from openai.types.responses import Response as OpenAIResponse

from easel.cluster.errors import NoReplica
from easel.cluster.gateway.settings import GatewaySettings
from easel.scheduler.request import Request
from tests.cluster.gateway.fake_answers import STORY, Cluster, story
from tests.cluster.gateway.fakes import MODEL, Script, blocks_of, events_in, post, tokens_of
from tests.cluster.gateway.openai_client import OPENING, RESPONSE, RESPONSES, client_of

pytestmark = pytest.mark.asyncio


async def until_ended(client: openai.AsyncOpenAI, response_id: str) -> OpenAIResponse:
    while True:
        response = await client.responses.retrieve(response_id)
        if response.status not in ("queued", "in_progress"):
            return response
        await asyncio.sleep(0)  # the client talks to the gateway without ever giving way


async def test_a_background_response_comes_back_at_once_and_runs_without_a_client() -> None:
    async with client_of(Cluster(story).gateway("A")) as client:
        response = await client.responses.create(model=MODEL, input="hi", background=True)
        assert (response.status, response.output, response.background) == ("queued", [], True)
        ended = await until_ended(client, response.id)
    assert (ended.status, ended.output_text) == ("completed", STORY)


async def test_a_background_response_whose_gateway_died_is_driven_by_another() -> None:
    cluster = Cluster(story)
    dying, other = cluster.gateway("A", hold_after=2), cluster.gateway("B")
    async with client_of(dying) as first, client_of(other) as second:
        response = await first.responses.create(model=MODEL, input="hi", background=True)
        await dying.backend.holding.wait()
        dying.die()
        assert (await until_ended(second, response.id)).output_text == STORY
    assert len(other.backend.requests[0].committed) == 16


async def test_a_background_stream_may_be_left_and_joined_again() -> None:
    gateway = Cluster(story).gateway("A", hold_after=2)
    leaving = gateway.connect(RESPONSE | {"stream": True, "background": True}, RESPONSES)
    before = events_in("\n\n".join([*await leaving.events(OPENING + 3), ""]))
    assert [kind for kind, _ in before[:3]] == ["response.created", "response.queued", "response.in_progress"]
    await leaving.leave()
    assert gateway.backend.cancelled == []
    async with client_of(gateway) as client:
        response_id = before[0][1]["response"]["id"]
        assert (await client.responses.retrieve(response_id)).status == "in_progress"
        assert (await client.responses.cancel(response_id)).status == "cancelled"


@pytest.mark.parametrize("where", ["A", "B"])
async def test_a_cancelled_background_response_stops_its_work_wherever_it_runs(where: str) -> None:
    cluster = Cluster(story)
    gateways = {"A": cluster.gateway("A", hold_after=1), "B": cluster.gateway("B")}
    driving = gateways["A"]
    watching = driving.connect(RESPONSE | {"stream": True, "background": True}, RESPONSES)
    events = events_in("\n\n".join([*await watching.events(OPENING + 2), ""]))
    response_id = events[0][1]["response"]["id"]
    async with client_of(gateways[where]) as client:
        for _ in range(2):
            cancelled = await client.responses.cancel(response_id)
            assert (cancelled.status, cancelled.output_text) == ("cancelled", STORY[:8])
    await asyncio.wait([watching.serving])
    assert events_in(watching.body.decode())[-1][0] == "response.cancelled"
    assert len(driving.backend.cancelled) == 1


async def test_openai_s_client_reads_a_cancelled_response_to_its_end() -> None:
    gateway = Cluster(story).gateway("A", hold_after=1)
    async with client_of(gateway) as client:
        response = await client.responses.create(model=MODEL, input="hi", background=True)
        await gateway.backend.holding.wait()
        await client.responses.cancel(response.id)
        stream = await client.responses.retrieve(response.id, stream=True)
        kinds = [str(event.type) async for event in stream]
    assert kinds[-2:] == ["response.output_text.delta", "response.cancelled"]


async def test_a_background_response_that_cannot_run_has_failed() -> None:
    cluster = Cluster(lambda request: [ValueError("a bug")])
    gateway = cluster.gateway("A")
    body = RESPONSE | {"stream": True, "background": True}
    events = events_in((await post(gateway.app, RESPONSES, body)).text)
    kind, data = events[-1]
    assert (kind, data["response"]["error"]["code"]) == ("response.failed", "server_error")
    async with client_of(cluster.gateway("B")) as client:
        failed = await until_ended(client, data["response"]["id"])
    assert failed.status == "failed"
    assert failed.error is not None


async def test_a_background_response_waits_while_the_cluster_is_full() -> None:
    answers = itertools.chain([[NoReplica(1.0)], [NoReplica(1.0)]], itertools.repeat(None))

    def script(request: Request) -> Script:
        return next(answers) or blocks_of(request, tokens_of(STORY))

    cluster = Cluster(script, settings=GatewaySettings(retry_after_seconds=0.001))
    async with client_of(cluster.gateway("A")) as client:
        response = await client.responses.create(model=MODEL, input="hi", background=True)
        assert (await until_ended(client, response.id)).output_text == STORY


async def test_what_a_gateway_drives_is_left_to_others_when_it_stops() -> None:
    cluster = Cluster(story)
    stopping, other = cluster.gateway("A", hold_after=1), cluster.gateway("B")
    async with client_of(stopping) as first, client_of(other) as second:
        response = await first.responses.create(model=MODEL, input="hi", background=True)
        await stopping.backend.holding.wait()
        await stopping.app.state.answers.stop()
        assert stopping.store.released == [response.id]
        other.app.state.answers.start()
        assert (await until_ended(second, response.id)).output_text == STORY


async def test_a_background_response_is_refused_while_it_could_not_be_kept() -> None:
    gateway = Cluster(story).gateway("A")
    gateway.store.away = True
    answer = await post(gateway.app, RESPONSES, RESPONSE | {"background": True})
    assert answer.status_code == 503
    assert gateway.backend.requests == []
