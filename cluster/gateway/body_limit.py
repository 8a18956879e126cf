"""Refuses bodies that are too large before anything parses them."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easel.cluster.gateway.error_answers import response_of
from easel.cluster.gateway.errors import BodyTooLarge


class BodyLimitMiddleware:
    """Reads the whole body, which every route with one needs anyway, and stops at the limit."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = await self._read(Headers(scope=scope), receive)
        if body is None:
            await response_of(BodyTooLarge(self.max_bytes))(scope, receive, send)
            return
        await self.app(scope, _replaying(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> list[Message] | None:
        """The messages that make up the body, or None as soon as it is too large."""
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self.max_bytes:
            return None
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self.max_bytes:
                return None
            if not message.get("more_body", False):
                return messages


def _replaying(messages: list[Message], receive: Receive) -> Receive:
    """A `receive` that gives the messages already read, then goes on with the connection's."""
    waiting = iter(messages)

    async def replay() -> Message:
        message = next(waiting, None)
        return await receive() if message is None else message

    return replay
