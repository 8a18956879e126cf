"""One key, one answer: whichever gateway it comes to, and however often."""

import pytest

from easel.cluster.gateway.settings import GatewaySettings
from tests.cluster.gateway.fake_answers import BODY, STORY, Client, Cluster, settled, story, texts
from tests.cluster.gateway.fakes import CHAT, chunks_in, post

pytestmark = pytest.mark.asyncio

KEY = {"Idempotency-Key": "k" * 255}


async def test_the_same_key_of_two_tenants_is_two_keys() -> None:
    cluster = Cluster(story, settings=GatewaySettings(api_keys=("one", "two")))
    gateway = cluster.gateway("A")
    ids = {
        (await post(gateway.app, CHAT, BODY, authorization=f"Bearer {key}", **KEY)).headers[
            "x-easel-request-id"
        ]
        for key in ("one", "two")
    }
    assert len(ids) == 2


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_key_that_comes_again_brings_the_same_answer(stream: bool, again: bool) -> None:
    cluster = Cluster(story)
    first = await post(cluster.gateway("A").app, CHAT, BODY | {"stream": stream}, **KEY)
    await settled(cluster)
    other = cluster.gateway("B")
    second = await post(other.app, CHAT, BODY | {"stream": again}, **KEY)
    assert second.headers["x-easel-request-id"] == first.headers["x-easel-request-id"]
    assert other.backend.requests == []
    if again:
        assert texts(chunks_in(second.text)) == {0: STORY}
    else:
        assert second.json()["choices"][0]["message"]["content"] == STORY


async def test_two_requests_with_one_key_at_once_share_one_answer() -> None:
    gateway = Cluster(story).gateway("A", hold_after=1)
    clients: list[Client] = [gateway.connect(BODY, **KEY) for _ in range(2)]
    first, second = [await client.events(1) for client in clients]
    assert first == second
    assert len(gateway.backend.requests) == 1
    await clients[0].leave()
    assert gateway.backend.cancelled == []
    await clients[1].leave()
    assert len(gateway.backend.cancelled) == 1


async def test_a_key_that_comes_with_another_body_is_refused() -> None:
    gateway = Cluster(story).gateway("A")
    await post(gateway.app, CHAT, BODY, **KEY)
    answer = await post(gateway.app, CHAT, BODY | {"seed": 1}, **KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb"])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    gateway = Cluster(story).gateway("A")
    answer = await post(gateway.app, CHAT, BODY, **{"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
