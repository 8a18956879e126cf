"""The Responses API, as OpenAI's own client sees it."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.responses import Response as OpenAIResponse

from easel.cluster.errors import NoReplica
from easel.scheduler.request import FinishReason
from tests.cluster.gateway.fake_answers import BLOCKS, STORY, Cluster, FakeGateway, story
from tests.cluster.gateway.fakes import MODEL, blocks_of, events_in, get, post, tokens_of
from tests.cluster.gateway.openai_client import OPENING, RESPONSE, RESPONSES, client_of

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    yield Cluster(story).gateway("A")


@pytest_asyncio.fixture
async def client(gateway: FakeGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(gateway) as connected:
        yield connected


async def test_a_response_has_openai_s_shape(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(
        model=MODEL, input="hi", instructions="be brief", metadata={"a": "b"}, max_output_tokens=20
    )
    OpenAIResponse.model_validate(response.model_dump())
    assert response.output_text == STORY
    assert (response.status, response.object, response.created_at) == ("completed", "response", 1000)
    assert (response.instructions, response.metadata) == ("be brief", {"a": "b"})
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 3
    assert response.usage.total_tokens == response.usage.input_tokens + len(STORY.encode())
    extra: dict[str, Any] = response.model_extra or {}
    assert extra["diffusion"]["blocks"] == BLOCKS


async def test_a_stream_has_openai_s_events_one_delta_for_each_block(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(model=MODEL, input="hi", stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * BLOCKS,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == STORY
    assert [getattr(event, "sequence_number", None) for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    OpenAIResponse.model_validate(last.response.model_dump())
    assert last.response.output_text == STORY


async def test_each_event_names_its_kind_and_its_number_in_the_stream_itself(gateway: FakeGateway) -> None:
    text = (await post(gateway.app, RESPONSES, RESPONSE | {"stream": True})).text
    for number, (event, (kind, data)) in enumerate(zip(text.split("\n\n"), events_in(text), strict=False)):
        assert kind == data["type"]
        assert f"\nid: {number}\n" in event


async def test_a_response_cut_off_by_its_limit_is_incomplete() -> None:
    gateway = Cluster(lambda request: blocks_of(request, tokens_of("abc"), finish=FinishReason.LENGTH))
    async with client_of(gateway.gateway("A")) as client:
        response = await client.responses.create(model=MODEL, input="hi")
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == "abc"


async def test_a_stored_response_is_retrieved_at_any_gateway() -> None:
    cluster = Cluster(story)
    async with client_of(cluster.gateway("A")) as first, client_of(cluster.gateway("B")) as second:
        response = await first.responses.create(model=MODEL, input="hi")
        found = await second.responses.retrieve(response.id)
    assert (found.status, found.output_text) == ("completed", STORY)
    assert found.usage == response.usage


@pytest.mark.parametrize("background", [False, True])
async def test_events_after_any_number_are_those_of_the_whole_stream(background: bool) -> None:
    cluster = Cluster(story)
    body = RESPONSE | {"stream": True, "background": background}
    whole = events_in((await post(cluster.gateway("A").app, RESPONSES, body)).text)
    response_id = whole[0][1]["response"]["id"]
    other = cluster.gateway("B")
    for after in range(-1, len(whole)):
        path = f"{RESPONSES}/{response_id}?stream=true&starting_after={after}"
        rest = events_in((await get(other.app, path)).text)
        assert [_plain(event) for event in rest] == [_plain(event) for event in whole[after + 1 :]]
        again = await get(
            other.app, f"{RESPONSES}/{response_id}?stream=true", **{"Last-Event-ID": f"{after}"}
        )
        assert after < 0 or [_plain(event) for event in events_in(again.text)] == [
            _plain(event) for event in rest
        ]


def _plain(event: tuple[str | None, Any]) -> Any:
    """An event less what says how it came about."""
    _, data = event
    response = data.get("response")
    return data if response is None else data | {"response": response | {"diffusion": None}}


@pytest.mark.parametrize("seen", range(OPENING + 1, OPENING + BLOCKS + 1))
async def test_a_stream_whose_gateway_died_goes_on_at_another(seen: int) -> None:
    cluster = Cluster(story)
    dying = cluster.gateway("A", hold_after=seen - OPENING)
    client = dying.connect(RESPONSE | {"stream": True}, RESPONSES)
    before = events_in("\n\n".join([*await client.events(seen), ""]))
    dying.die()
    await client.leave()
    response_id, after = before[0][1]["response"]["id"], before[-1][1]["sequence_number"]
    path = f"{RESPONSES}/{response_id}?stream=true&starting_after={after}"
    rest = events_in((await get(cluster.gateway("B").app, path)).text)
    fresh = await post(Cluster(story).gateway("A").app, RESPONSES, RESPONSE | {"stream": True})
    assert [_plain(event) for event in [*before, *rest]] == [_plain(event) for event in events_in(fresh.text)]


async def test_a_response_that_fails_before_its_first_block_is_an_http_error() -> None:
    gateway = Cluster(lambda request: [NoReplica(1.0)]).gateway("A")
    for stream in (False, True):
        assert (await post(gateway.app, RESPONSES, RESPONSE | {"stream": stream})).status_code == 503


async def test_a_stream_that_fails_on_the_way_says_so_and_may_be_taken_up_again() -> None:
    cluster = Cluster(story)
    failing = cluster.gateway("A")
    script = failing.backend.script
    failing.backend.script = lambda request: [script(request)[0], NoReplica(1.0)]
    events = events_in((await post(failing.app, RESPONSES, RESPONSE | {"stream": True})).text)
    assert events[-1][0] == "error"
    assert events[-1][1]["code"] == "unavailable"
    failing.backend.script = script
    response_id, after = events[0][1]["response"]["id"], events[-2][1]["sequence_number"]
    path = f"{RESPONSES}/{response_id}?stream=true&starting_after={after}"
    rest = events_in((await get(failing.app, path)).text)
    deltas = [data["delta"] for kind, data in [*events, *rest] if kind == "response.output_text.delta"]
    assert "".join(deltas) == STORY


async def test_a_response_follows_another_one(gateway: FakeGateway, client: openai.AsyncOpenAI) -> None:
    gateway.backend.script = lambda request: blocks_of(request, tokens_of("ok"))
    first = await client.responses.create(model=MODEL, input="hi", instructions="be brief")
    second = await client.responses.create(model=MODEL, input="more", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    third = await client.responses.create(model=MODEL, input="and", previous_response_id=second.id)
    assert third.output_text == "ok"
    prompts = [request.prompt for request in gateway.backend.requests]
    turn = (2, *tokens_of("hi"), 3, *tokens_of("ok"), 2, *tokens_of("more"), 3)
    assert prompts[1] == turn
    assert prompts[2] == (*turn, *tokens_of("ok"), 2, *tokens_of("and"), 3)


async def test_turns_may_be_items_with_parts(gateway: FakeGateway, client: openai.AsyncOpenAI) -> None:
    await client.responses.create(
        model=MODEL,
        input=[
            {"role": "developer", "content": "x"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "y"}]},
        ],
        temperature=0.5,
        top_p=0.5,
        extra_body={"seed": 3, "top_k": 4, "diffusion": {"steps": 2}},
    )
    (request,) = gateway.backend.requests
    assert request.prompt == (4, *tokens_of("x"), 2, *tokens_of("y"), 3)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.5, 0.5, 4, 3)
    assert request.diffusion.steps == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"background": True, "store": False}, "store"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1000}, "max_output_tokens"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.type"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"metadata": {str(index): "" for index in range(17)}}, "metadata"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"n": 2}, "n"),
    ],
)
async def test_what_is_not_implemented_or_wrong_is_refused_by_name(
    gateway: FakeGateway, fields: dict[str, Any], param: str
) -> None:
    answer = await post(gateway.app, RESPONSES, RESPONSE | fields)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["", "?stream=true", "/cancel"])
async def test_a_response_that_nobody_knows_is_a_404(gateway: FakeGateway, path: str) -> None:
    ask = post(gateway.app, f"{RESPONSES}/resp_x{path}", {}) if path == "/cancel" else None
    answer = await (ask or get(gateway.app, f"{RESPONSES}/resp_x{path}"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "answer_not_found")


async def test_a_response_that_is_not_stored_cannot_be_retrieved(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="hi", store=False)
    assert response.output_text == STORY
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)


async def test_a_response_in_the_foreground_is_not_cancelled(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="hi")
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(response.id)


async def test_openai_s_client_streams_the_rest_of_a_background_response(client: openai.AsyncOpenAI) -> None:
    created = await client.responses.create(model=MODEL, input="hi", background=True)
    stream = await client.responses.retrieve(created.id, stream=True, starting_after=OPENING + 1)
    events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == STORY[len(STORY) - len("".join(deltas)) :]
    assert len(deltas) == BLOCKS - 1
    assert events[-1].type == "response.completed"


async def test_a_key_that_comes_again_brings_the_same_response(client: openai.AsyncOpenAI) -> None:
    key = {"Idempotency-Key": "one"}
    first = await client.responses.create(model=MODEL, input="hi", extra_headers=key)
    second = await client.responses.create(model=MODEL, input="hi", extra_headers=key)
    assert first.id == second.id
    with pytest.raises(openai.UnprocessableEntityError):
        await client.responses.create(model=MODEL, input="ho", extra_headers=key)
