"""One client's way to the cluster: server-sent events, and what to do when a connection breaks."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from tests.chaos.tally import Tally

_AGAIN = (429, 503)
_PATIENCE_SECONDS = 180.0  # of one request, attempts and all
_READ_SECONDS = 45.0  # silence after which a stream is given up
_WHOLE_SECONDS = 100.0  # an answer that does not stream is silent until it is there


class Failed(Exception):
    """What a client cannot make good by asking again."""


class Forgotten(Exception):
    """The cluster does not know the answer any more and says so; it may be asked for anew."""


class Again(Exception):
    """The server asks for another attempt."""


class Silent(Exception):
    """A connection brought nothing for a long time, though nobody broke it."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event."""

    name: str
    last_id: str
    data: str

    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(slots=True)
class Connection:
    """Fresh sockets for each request, so that any gateway may get it."""

    base_url: str
    tally: Tally
    pause_seconds: float = 0.3  # before another attempt
    _client: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self._client = httpx.AsyncClient(
            base_url=self.base_url,
            timeout=httpx.Timeout(_READ_SECONDS, connect=5.0),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def persist(self, attempt: Callable[[], Awaitable[bool]]) -> None:
        """Until an attempt says it is done. Raises Failed."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        last: Exception | None = None
        while asyncio.get_running_loop().time() < deadline:
            try:
                if await attempt():
                    return
            except Again as refused:
                self.tally.refused += 1
                last = refused
            except Silent as silent:
                self.tally.silences.append(str(silent))
                last = silent
            except httpx.TransportError as broken:
                last = broken
            await asyncio.sleep(self.pause_seconds)
        raise Failed(f"no end within {_PATIENCE_SECONDS:.0f} s; last: {last!r}")

    async def post(self, path: str, body: Mapping[str, object], headers: Mapping[str, str]) -> Any:
        """The JSON of a whole answer. Raises Again, Failed, Silent, or httpx.TransportError."""
        wire = _Wire()
        try:
            response = await self._client.post(
                path,
                json=body,
                headers=dict(headers),
                timeout=_WHOLE_SECONDS,
                extensions={"trace": wire.trace},
            )
        except httpx.ReadTimeout:
            raise Silent(f"POST {path}: {wire.other_end()}") from None
        _check(response.status_code, response.text)
        return response.json()

    async def events(
        self, method: str, path: str, body: Mapping[str, object] | None, headers: Mapping[str, str]
    ) -> AsyncGenerator[ServerEvent, None]:
        """A stream's events; closing it hangs up. Raises Again, Failed, Silent, or httpx.TransportError."""
        wire = _Wire()
        stream = self._client.stream(
            method, path, json=body, headers=dict(headers), extensions={"trace": wire.trace}
        )
        try:
            async with stream as response:
                if response.status_code != 200:
                    _check(response.status_code, (await response.aread()).decode(errors="replace"))
                async for event in _events_of(response.aiter_lines()):
                    yield event
        except httpx.ReadTimeout:
            raise Silent(f"{method} {path} {dict(headers)}: {wire.other_end()}") from None


async def _events_of(lines: AsyncIterator[str]) -> AsyncGenerator[ServerEvent, None]:
    name = last_id = ""
    data: list[str] = []
    async for line in lines:
        field_name, _, value = line.partition(": ")
        if line == "" and data:
            yield ServerEvent(name, last_id, "\n".join(data))
            name, data = "", []
        elif field_name == "event":
            name = value
        elif field_name == "id":
            last_id = value
        elif field_name == "data":
            data.append(value)


@dataclass(slots=True)
class _Wire:
    """Which process is at the other end of a connection."""

    port: int = 0  # ours

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Called by httpx at each step of a request."""
        if name == "connection.connect_tcp.complete":
            self.port = info["return_value"].get_extra_info("client_addr")[1]

    def other_end(self) -> str:
        """For people; slow."""
        for connection in psutil.net_connections(kind="tcp"):
            if connection.raddr and connection.raddr.port == self.port:
                if connection.pid is None:
                    return "nobody has accepted it"
                process = psutil.Process(connection.pid)
                age = time.time() - process.create_time()
                return f"process {connection.pid}, {process.status()}, {age:.0f} s old"
        return "the other end is gone"


def _check(status: int, text: str) -> None:
    if status in _AGAIN:
        raise Again(f"{status}: {text[:300]}")
    if status == 404 and '"answer_not_found"' in text:
        raise Forgotten(text[:300])
    if status != 200:
        raise Failed(f"{status}: {text[:300]}")
