"""Refuses requests that are too large, too slow or not JSON before a route sees them."""

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easel.cluster.gateway.error_answers import response_of
from easel.cluster.gateway.errors import (
    ApiError,
    BodyTooLarge,
    BodyTooSlow,
    HeadersTooLarge,
    UnsupportedBody,
    shown,
)
from easel.cluster.gateway.strict_json import MAX_DIGITS, check_json

WITH_A_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class ClientLeft(Exception):
    """The connection closed within the request's body."""


class BodyLimitMiddleware:
    """Reads the whole body, which every route with one needs anyway, and stops at a limit."""

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        max_depth: int = 32,
        seconds: float = 30.0,
        max_header_bytes: int = 16 * 1024,
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_depth = max_depth
        self.seconds = seconds
        self.max_header_bytes = max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_headers(headers)
            body = await self._read(headers, receive)
            if body and scope["method"] in WITH_A_BODY:
                _check_kind(headers)
                check_json(body, self.max_depth)
        except ApiError as refusal:
            await response_of(refusal)(scope, receive, send)
        except ClientLeft:
            pass  # nobody is left to tell
        else:
            await self.app(scope, _replaying(body, receive), send)

    def _check_headers(self, headers: Headers) -> None:
        size = sum(len(name) + len(value) for name, value in headers.raw)
        if size > self.max_header_bytes:
            raise HeadersTooLarge(size, self.max_header_bytes)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body. Raises BodyTooLarge as soon as it is, BodyTooSlow, or ClientLeft."""
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:MAX_DIGITS]) > self.max_bytes:
            raise BodyTooLarge(self.max_bytes)
        try:
            async with asyncio.timeout(self.seconds):
                return await _read_to_end(receive, self.max_bytes)
        except TimeoutError:
            raise BodyTooSlow(self.seconds) from None


async def _read_to_end(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _check_kind(headers: Headers) -> None:
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedBody("Content-Encoding", f"is {shown(encoding)}; send the body as it is.")
    kind = headers.get("content-type", "")
    essence = kind.partition(";")[0].strip().lower()
    is_json = essence == "application/json" or (
        essence.startswith("application/") and essence.endswith("+json")
    )
    if not is_json:
        problem = f"is {shown(kind)}; send a JSON object with Content-Type: application/json."
        raise UnsupportedBody("Content-Type", problem)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body already read, then goes on with the connection's."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
