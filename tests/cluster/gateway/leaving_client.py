"""A client that reads a stream, and may leave or stall at any moment."""

import asyncio

from fastapi import FastAPI
from starlette.types import Message


class Client:
    """A streaming client, which reads until it leaves."""

    def __init__(self, app: FastAPI, path: str, body: bytes, headers: dict[str, str]) -> None:
        self.body = bytearray()
        self._left = asyncio.Event()
        self._received = asyncio.Event()
        self._taking = asyncio.Event()
        self._taking.set()
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [
                (b"content-type", b"application/json"),
                *((name.lower().encode(), value.encode()) for name, value in headers.items()),
            ],
            "server": ("gateway", 80),
            "client": ("client", 1),
        }
        self.serving = asyncio.create_task(app(scope, self._receive, self._send))

    async def events(self, count: int) -> list[str]:
        """Waits for that many events."""
        while self.body.count(b"\n\n") < count:
            self._received.clear()
            await self._received.wait()
        return self.body.decode().split("\n\n")[:count]

    def stall(self) -> None:
        """Take nothing any more."""
        self._taking.clear()

    async def leave(self) -> None:
        self._left.set()
        await asyncio.wait([self.serving])

    async def _receive(self) -> Message:
        request, self._request = self._request, None
        if request is not None:
            return request
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._taking.wait()
        self.body += message.get("body", b"")
        self._received.set()
