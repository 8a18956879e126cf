"""Answers that outlive a gateway or a connection: Last-Event-ID."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from easel.cluster.gateway.settings import GatewaySettings
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import Request
from tests.cluster.gateway.fake_answers import (
    BLOCKS,
    BODY,
    STORY,
    TIMES,
    Cluster,
    FakeGateway,
    settled,
    story,
    texts,
    without_costs,
)
from tests.cluster.gateway.fakes import CHAT, COMPLETIONS, MODEL, chunks_in, events_in, post

pytestmark = pytest.mark.asyncio


def event_id(event: str) -> str:
    return next(line for line in event.split("\n") if line.startswith("id: ")).removeprefix("id: ")


async def cut(gateway: FakeGateway, body: dict[str, Any], chunks: int, path: str = CHAT) -> list[str]:
    """The events a client has when its gateway dies."""
    client = gateway.connect(body, path)
    events = await client.events(chunks)
    gateway.die()
    await client.leave()
    return events


async def unfaulted(body: dict[str, Any], path: str = CHAT) -> list[dict[str, Any]]:
    return chunks_in((await post(Cluster(story).gateway("A").app, path, body)).text)


@pytest.mark.parametrize("unwritten", [0, 1])
@pytest.mark.parametrize("seen", range(1, BLOCKS + 1))
async def test_a_stream_whose_gateway_died_goes_on_at_another_after_what_was_seen(
    seen: int, unwritten: int
) -> None:
    cluster = Cluster(story)
    dying = cluster.gateway("A", hold_after=seen)
    dying.backend.unwritten = unwritten
    before = await cut(dying, BODY, seen)
    answer = await post(cluster.gateway("B").app, CHAT, BODY, **{"Last-Event-ID": event_id(before[-1])})
    chunks = chunks_in("\n\n".join([*before, ""]) + answer.text)
    assert [without_costs(chunk) for chunk in chunks] == await unfaulted(BODY)


async def test_a_client_that_lost_chunks_on_the_way_gets_them_again() -> None:
    cluster = Cluster(story)
    before = await cut(cluster.gateway("A", hold_after=3), BODY, 3)
    answer = await post(cluster.gateway("B").app, CHAT, BODY, **{"Last-Event-ID": event_id(before[0])})
    chunks = chunks_in("\n\n".join([before[0], ""]) + answer.text)
    assert [without_costs(chunk) for chunk in chunks] == await unfaulted(BODY)
    assert chunks[-1]["diffusion"]["resumed"] == 3


@pytest.mark.parametrize("seen", range(1, 2 * BLOCKS + 1))
async def test_each_of_several_choices_goes_on_where_it_was(seen: int) -> None:
    cluster = Cluster(story)
    body = {"model": MODEL, "prompt": ["ab", "c"], "stream": True, "stop": ["sat"]}
    before = await cut(cluster.gateway("A", hold_after=-(-seen // 2)), body, seen, COMPLETIONS)
    last = {"Last-Event-ID": event_id(before[-1])}
    answer = await post(cluster.gateway("B").app, COMPLETIONS, body, **last)
    chunks = chunks_in("\n\n".join([*before, ""]) + answer.text)
    whole = await unfaulted(body, COMPLETIONS)
    assert texts(chunks) == texts(whole)
    assert without_costs(chunks[-1])["usage"] == whole[-1]["usage"]
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}


async def test_a_client_that_left_cancels_its_work_and_may_come_back_to_the_same_tokens() -> None:
    cluster = Cluster(story)
    gateway = cluster.gateway("A", hold_after=2)
    client = gateway.connect(BODY)
    before = await client.events(2)
    await client.leave()
    assert gateway.backend.cancelled == ["chatcmpl-id0-0"]
    assert gateway.store.released == ["chatcmpl-id0"]
    gateway.backend.hold_after = None
    answer = await post(gateway.app, CHAT, BODY, **{"Last-Event-ID": event_id(before[-1])})
    assert texts(chunks_in("\n\n".join([*before, ""]) + answer.text)) == {0: STORY}
    assert len(gateway.backend.requests[-1].committed) == 16


async def test_a_finished_answer_is_replayed_without_work() -> None:
    cluster = Cluster(story)
    first = await post(cluster.gateway("A").app, CHAT, BODY)
    events = first.text.split("\n\n")
    await settled(cluster)
    other = cluster.gateway("B")
    again = await post(other.app, CHAT, BODY, **{"Last-Event-ID": event_id(events[0])})
    assert texts(chunks_in(events[0] + "\n\n" + again.text)) == {0: STORY}
    assert other.backend.requests == []


async def test_nothing_but_the_end_is_left_for_a_client_that_has_seen_all() -> None:
    gateway = Cluster(story).gateway("A")
    events = (await post(gateway.app, CHAT, BODY)).text.split("\n\n")
    again = await post(gateway.app, CHAT, BODY, **{"Last-Event-ID": event_id(events[BLOCKS - 1])})
    assert events_in(again.text) == [(None, "[DONE]")]


async def test_another_gateway_s_answer_is_followed_while_it_is_driven() -> None:
    cluster = Cluster(story)
    driving, following = cluster.gateway("A", hold_after=2), cluster.gateway("B")
    first = driving.connect(BODY)
    before = await first.events(1)
    last = {"Last-Event-ID": event_id(before[0])}
    second = following.connect(BODY, **last)
    await second.events(1)
    assert following.backend.requests == []
    driving.die()
    await second.events(BLOCKS)
    assert texts(chunks_in("\n\n".join([*before, ""]) + second.body.decode())) == {0: STORY}
    assert len(following.backend.requests[0].committed) == 16
    await first.leave()


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("cmpl-nobody/1/7", 404, "answer_not_found"),
        ("chatcmpl-id0/1.1/7", 400, "invalid_value"),
        ("chatcmpl-id0", 400, "invalid_value"),
        ("chatcmpl-id0/1", 400, "invalid_value"),
        ("chatcmpl-id0/-1/7", 400, "invalid_value"),
        ("chatcmpl-id0/" + "9" * 99, 400, "invalid_value"),
    ],
)
async def test_an_event_id_that_is_none_is_refused(header: str, status: int, code: str) -> None:
    gateway = Cluster(story).gateway("A")
    await post(gateway.app, CHAT, BODY)
    answer = await post(gateway.app, CHAT, BODY, **{"Last-Event-ID": header})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, "Last-Event-ID")


@pytest.mark.parametrize("seen", range(1, BLOCKS))
async def test_an_answer_that_the_journal_forgot_is_made_again_from_its_seed(seen: int) -> None:
    events = await cut(Cluster(story).gateway("A", hold_after=seen), BODY, seen)
    other = Cluster(story).gateway("B")
    rest = await post(other.app, CHAT, BODY, **{"Last-Event-ID": event_id(events[-1])})
    assert texts(chunks_in("\n\n".join([*events, ""]) + rest.text)) == {0: STORY}
    (request,) = other.backend.requests
    answer_id, _, seed = event_id(events[-1]).split("/")
    assert (request.request_id, request.sampling.seed) == (f"{answer_id}-0", int(seed))


async def test_only_the_body_that_began_an_answer_goes_on_with_it() -> None:
    gateway = Cluster(story).gateway("A")
    events = (await post(gateway.app, CHAT, BODY)).text.split("\n\n")
    last = {"Last-Event-ID": event_id(events[0])}
    answer = await post(gateway.app, CHAT, BODY | {"temperature": 1.0}, **last)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "answer_mismatch")


async def test_an_answer_that_is_away_with_the_journal_is_a_503() -> None:
    gateway = Cluster(story).gateway("A")
    gateway.store.away = True
    answer = await post(gateway.app, CHAT, BODY, **{"Last-Event-ID": "chatcmpl-id0/1/7"})
    assert answer.status_code == 503


async def test_an_answer_is_given_unprotected_while_the_journal_is_away() -> None:
    gateway = Cluster(story).gateway("A")
    gateway.store.away = True
    assert texts(chunks_in((await post(gateway.app, CHAT, BODY)).text)) == {0: STORY}


async def test_an_answer_of_another_tenant_is_not_known() -> None:
    cluster = Cluster(story, settings=GatewaySettings(api_keys=("one", "two")))
    gateway = cluster.gateway("A")
    events = (await post(gateway.app, CHAT, BODY, authorization="Bearer one")).text.split("\n\n")
    last = {"Last-Event-ID": event_id(events[0])}
    for key, status in (("one", 200), ("two", 404)):
        answer = await post(gateway.app, CHAT, BODY, authorization=f"Bearer {key}", **last)
        assert answer.status_code == status


async def test_a_gateway_that_lost_its_turn_follows_the_one_that_has_it() -> None:
    cluster = Cluster(story)
    first, second = cluster.gateway("A", hold_after=1), cluster.gateway("B", hold_after=3)
    stalled = first.connect(BODY)
    before = await stalled.events(1)
    cluster.journal.forget_drivers()
    other = second.connect(BODY, **{"Last-Event-ID": event_id(before[0])})
    await other.events(2)
    await stalled.events(3)
    assert first.backend.cancelled == ["chatcmpl-id0-0"]
    assert len(first.backend.requests) == 1
    await other.leave()
    # The other's client has gone: it is the first one's turn again.
    first.backend.hold_after = None
    await asyncio.wait([stalled.serving])
    assert texts(chunks_in(stalled.body.decode())) == {0: STORY}


async def test_an_answer_goes_on_while_the_journal_is_away_and_is_protected_again_afterwards() -> None:
    cluster = Cluster(story)
    gateway = cluster.gateway("A", hold_after=2)
    gateway.store.away = True
    client = gateway.connect(BODY)
    before = await client.events(2)
    assert cluster.journal.answers == {}
    gateway.store.away = False
    while not cluster.journal.answers:
        await gateway.store.orphans()
    gateway.die()
    await client.leave()
    answer = await post(cluster.gateway("B").app, CHAT, BODY, **{"Last-Event-ID": event_id(before[-1])})
    assert texts(chunks_in("\n\n".join([*before, ""]) + answer.text)) == {0: STORY}


async def test_what_is_left_of_a_deadline_is_what_a_resumed_request_has() -> None:
    cluster = Cluster(story)
    body, deadline = BODY | {"seed": 1}, {"x-easel-deadline-ms": "5000"}
    dying = cluster.gateway("A", hold_after=1, clock=lambda: 0.0)
    client = dying.connect(body, **deadline)
    before = await client.events(1)
    dying.die()
    await client.leave()
    cluster.now += 2.0
    other = cluster.gateway("B", clock=lambda: 0.0)
    await post(other.app, CHAT, body, **{"Last-Event-ID": event_id(before[0])})
    assert dying.backend.requests[0].deadline_seconds == 5.0
    assert other.backend.requests[0].deadline_seconds == 3.0


async def test_a_client_that_reads_nothing_holds_its_backend_back_and_is_cut_off() -> None:
    times = replace(TIMES, stall_seconds=0.02)
    cluster = Cluster(story, settings=GatewaySettings(stream_buffer=2), times=times)
    gateway = cluster.gateway("A")
    client = gateway.connect(BODY)
    client.stall()
    await asyncio.wait([client.serving])
    # One block is on its way to the client, two wait for it; a third would be too much.
    (blocks,) = cluster.journal.blocks.values()
    assert len(blocks) == 3
    assert gateway.backend.cancelled == ["chatcmpl-id0-0"]
    assert gateway.store.released == ["chatcmpl-id0"]


async def test_a_canvas_is_not_numbered() -> None:
    def script(request: Request) -> list[BlockEvent | CanvasSnapshot]:
        canvas = CanvasSnapshot(request.request_id, 0, 1, (1,), (False,), (0.5,), 0)
        return [canvas, *story(request)]

    body = BODY | {"stream_options": {"include_canvas": True}}
    events = (await post(Cluster(script).gateway("A").app, CHAT, body)).text.split("\n\n")
    assert "canvas" in events[0]
    assert ["id: " in event for event in events[:3]] == [False, True, True]


@pytest.mark.parametrize(("wanted", "status"), [("off", 200), ("ON", 200), ("maybe", 400)])
async def test_a_client_that_cannot_read_event_ids_may_do_without(wanted: str, status: int) -> None:
    answer = await post(Cluster(story).gateway("A").app, CHAT, BODY, **{"X-Easel-Event-Ids": wanted})
    assert answer.status_code == status
    assert ("id: " in answer.text) == (wanted == "ON")
