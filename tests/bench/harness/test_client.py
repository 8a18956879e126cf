from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from easel.bench.harness.client import LoadClient, Target, retry_seconds
from easel.bench.harness.clock import WallClock
from easel.bench.harness.errors import NoServer
from tests.bench.harness.fakes import FakeServer, serving

BODY = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": True}
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def client_of(fake: FakeServer, timeout_seconds: float = 60.0) -> AsyncGenerator[LoadClient, None]:
    async with serving(fake) as url:
        target = Target(f"{url}v1", "a-key", (("x-deadline", "8"),), timeout_seconds)
        async with LoadClient(target, WallClock()) as client:
            yield client


@pytest.mark.asyncio
async def test_each_token_of_a_plain_server_is_a_chunk_with_a_time() -> None:
    fake = FakeServer()
    async with client_of(fake) as client:
        answer = await client.ask(CHAT, BODY)
    assert (answer.text, answer.error) == ("one two three", "")
    assert len(answer.chunks) == 3
    assert list(answer.chunks) == sorted(answer.chunks)


@pytest.mark.asyncio
async def test_the_key_and_other_headers_are_sent() -> None:
    fake = FakeServer()
    async with client_of(fake) as client:
        await client.ask(CHAT, BODY)
    (headers,) = fake.headers
    assert (headers["authorization"], headers["x-deadline"]) == ("Bearer a-key", "8")


@pytest.mark.parametrize(
    ("fake", "kind"),
    [
        (FakeServer(status=503), "status 503"),
        (FakeServer(refuse_first=1), "status 429"),
        (FakeServer(broken=True), "ended early"),
    ],
)
@pytest.mark.asyncio
async def test_a_failed_request_is_an_answer_that_says_so(fake: FakeServer, kind: str) -> None:
    async with client_of(fake) as client:
        answer = await client.ask(CHAT, BODY)
    assert answer.error == kind
    assert answer.retry_after == (0.0 if fake.refuse_first else None)


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_is_named(unused_tcp_port: int) -> None:
    target = Target(f"http://127.0.0.1:{unused_tcp_port}")
    async with LoadClient(target, WallClock()) as client:
        assert (await client.ask(CHAT, BODY)).error == "no connection"
        with pytest.raises(NoServer, match="is `easel serve` running there"):
            await client.model()


@pytest.mark.asyncio
async def test_the_first_model_served_is_the_one_asked_for() -> None:
    async with client_of(FakeServer()) as client:
        assert await client.model() == "fake"
        with pytest.raises(NoServer, match="404"):
            await client.json("/health")


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    assert retry_seconds("1.5", now) == 1.5
    assert retry_seconds(format_datetime(now + timedelta(seconds=30), usegmt=True), now) == 30.0
    assert retry_seconds("soon", now) is None
    assert retry_seconds(None, now) is None
