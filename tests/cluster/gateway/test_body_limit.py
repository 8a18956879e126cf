"""Bodies that are too large, too slow, or not what they should be, never reach a route."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from easel.cluster.gateway.body_limit import BodyLimitMiddleware
from easel.cluster.gateway.settings import GatewaySettings
from tests.cluster.gateway.fakes import CHAT, FakeBackend, client_of, gateway_app, get, saying

pytestmark = pytest.mark.asyncio

BODY = b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}'
JSON = "application/json"


async def in_pieces(content: bytes, length: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), length):
        yield content[start : start + length]


async def sent(content: bytes, backend: FakeBackend | None = None, **headers: str) -> httpx.Response:
    kind = {"content-type": JSON} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with client_of(gateway_app(backend or saying("x"))) as client:
        return await client.post(CHAT, content=content, headers=kind)


def code_of(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused(announced: bool) -> None:
    app = gateway_app(saying("x"), settings=GatewaySettings(max_body_bytes=1000))
    content = b'{"model": "' + b"x" * 1000 + b'"}'

    async with client_of(app) as client:
        answer = await client.post(CHAT, content=content if announced else in_pieces(content, 900))
    assert answer.status_code == 413
    assert "1000 bytes" in answer.json()["error"]["message"]
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["9" * 5000, "99999999999"])
async def test_a_length_beyond_every_limit_is_refused_unread(length: str) -> None:
    answer = await sent(BODY, content_length=length)
    assert (answer.status_code, code_of(answer)) == (413, "request_too_large")


@pytest.mark.parametrize("kind", [JSON, "APPLICATION/JSON; charset=utf-8", "application/vnd.api+json"])
async def test_json_of_any_spelling_is_read(kind: str) -> None:
    assert (await sent(BODY, content_type=kind)).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/pickle"],
)
async def test_another_kind_of_body_is_a_415_that_names_the_header(kind: str) -> None:
    backend = saying("x")
    answer = await sent(BODY, backend, content_type=kind)
    assert (answer.status_code, code_of(answer)) == (415, "unsupported_media_type")
    assert answer.json()["error"]["param"] == "Content-Type"
    assert backend.requests == []


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("br", 415), ("identity", 200)])
async def test_a_compressed_body_is_a_415(encoding: str, status: int) -> None:
    assert (await sent(BODY, content_encoding=encoding)).status_code == status


async def test_headers_over_the_limit_are_a_431() -> None:
    answer = await sent(BODY, x_much="x" * 20_000)
    assert (answer.status_code, code_of(answer)) == (431, "headers_too_large")


async def test_a_request_without_a_body_needs_no_kind() -> None:
    assert (await get(gateway_app(saying("x")), "/v1/models")).status_code == 200


async def outcome(receive: Receive, seconds: float = 30.0) -> list[Message]:
    """What the middleware sends for a body that comes from `receive`; a route would answer with nothing."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def route(_: Scope, __: Receive, ___: Send) -> None:
        raise AssertionError("no route should see this")

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    await BodyLimitMiddleware(route, max_bytes=1000, seconds=seconds)(scope, receive, send)
    return messages


async def test_a_body_that_never_ends_is_a_408() -> None:
    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    start, body = await outcome(receive, seconds=0.01)
    assert start["status"] == 408
    assert b"request_timeout" in body["body"]


async def test_a_client_that_leaves_within_its_body_is_not_answered() -> None:
    waiting: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b'{"mod', "more_body": True},
    ]

    async def receive() -> Message:
        return waiting.pop()

    assert await outcome(receive) == []
