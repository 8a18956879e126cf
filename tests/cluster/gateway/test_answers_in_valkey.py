"""Gateways over a real journal: an answer is carried over, kept to its end, and replayed."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from easel.cluster.answer_store import JournaledAnswers
from easel.cluster.gateway.answer_drive import AnswerTimes
from easel.cluster.gateway.app import build_gateway
from easel.cluster.journal import Journal
from easel.cluster.journal_records import Admission, AnswerStatus, CommittedBlock, StoredAnswer
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import Request
from tests.cluster.gateway.fake_answers import BLOCKS, BODY, STORY, ResumingBackend, story, texts
from tests.cluster.gateway.fakes import CHAT, byte_tokenizer, chunks_in, events_in, get, model_info, post
from tests.cluster.gateway.leaving_client import Client
from tests.cluster.gateway.openai_client import RESPONSE, RESPONSES

pytestmark = pytest.mark.asyncio

DRIVER_SECONDS = 0.2


class JournalingBackend(ResumingBackend):
    """Writes its blocks as a worker replica does, though not behind."""

    def __init__(self, valkey: Journal, hold_after: int | None) -> None:
        super().__init__(story, hold_after=hold_after)
        self.valkey = valkey

    async def stream(
        self, request: Request, done: Sequence[BlockEvent] = ()
    ) -> AsyncGenerator[BlockEvent | CanvasSnapshot, None]:
        epoch = await self.valkey.acquire_lease(request.request_id, "replica", 0)
        await self.valkey.write([Admission(request)])
        async with aclosing(super().stream(request, done)) as events:
            async for event in events:
                if isinstance(event, BlockEvent):
                    await self.valkey.write([CommittedBlock(event, epoch)])
                yield event


def gateway(journal: Journal, gateway_id: str, hold_after: int | None = None) -> Any:
    times = AnswerTimes(driver_seconds=DRIVER_SECONDS, poll_seconds=0.01, settle_seconds=0.01)
    store = JournaledAnswers(journal, gateway_id, DRIVER_SECONDS)
    backend = JournalingBackend(journal, hold_after)
    return build_gateway(backend, model_info(), byte_tokenizer(), answers=store, times=times)


async def ended(journal: Journal, answer_id: str) -> StoredAnswer:
    store = JournaledAnswers(journal, "onlooker", DRIVER_SECONDS)
    while (stored := await store.read(answer_id)) is None or stored.status is AnswerStatus.IN_PROGRESS:
        pass
    return stored


async def die(app: Any) -> None:
    """All that a gateway does stops between two steps, and nothing is told to anybody."""
    app.state.answers.parts.store.release = _nothing
    await app.state.answers.stop()


async def _nothing(answer_id: str) -> None:
    pass


@pytest.mark.parametrize("seen", range(1, BLOCKS))
async def test_a_stream_goes_on_at_another_gateway_and_is_replayed_afterwards(
    journal: Journal, seen: int
) -> None:
    dying = gateway(journal, "A", hold_after=seen)
    client = Client(dying, CHAT, json.dumps(BODY).encode(), {})
    before = await client.events(seen)
    await die(dying)
    last = {"Last-Event-ID": before[-1].split("\n")[0].removeprefix("id: ")}
    second = gateway(journal, "B")
    rest = (await post(second, CHAT, BODY, **last)).text
    chunks = chunks_in("\n\n".join([*before, ""]) + rest)
    assert texts(chunks) == {0: STORY}
    assert (await ended(journal, chunks[0]["id"])).status is AnswerStatus.COMPLETED
    assert (await post(gateway(journal, "C"), CHAT, BODY, **last)).text == rest.replace(
        f'"resumed":{seen}', f'"resumed":{BLOCKS}'
    )
    await client.leave()


async def test_a_background_response_outlives_its_gateway(journal: Journal) -> None:
    dying, other = gateway(journal, "A", hold_after=2), gateway(journal, "B")
    created = (await post(dying, RESPONSES, RESPONSE | {"background": True})).json()
    await dying.state.answers.parts.backend.holding.wait()
    await die(dying)
    other.state.answers.start()
    assert (await ended(journal, created["id"])).status is AnswerStatus.COMPLETED
    path = f"{RESPONSES}/{created['id']}"
    found = (await get(gateway(journal, "C"), path)).json()
    assert (found["status"], found["output"][0]["content"][0]["text"]) == ("completed", STORY)
    events = events_in((await get(gateway(journal, "C"), f"{path}?stream=true&starting_after=5")).text)
    assert [data["sequence_number"] for _, data in events] == list(range(6, 6 + len(events)))


async def test_a_background_response_is_cancelled_from_another_gateway(journal: Journal) -> None:
    driving, other = gateway(journal, "A", hold_after=1), gateway(journal, "B")
    created = (await post(driving, RESPONSES, RESPONSE | {"background": True})).json()
    backend = driving.state.answers.parts.backend
    await backend.holding.wait()
    answer = await post(other, f"{RESPONSES}/{created['id']}/cancel", {})
    assert answer.json()["status"] == "cancelled"
    while (await driving.state.answers.snapshot(created["id"])).driven:
        await backend.valkey.ping()
    assert backend.cancelled == [f"{created['id']}-0"]
    await driving.state.answers.stop()
