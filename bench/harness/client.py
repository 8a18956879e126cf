"""One connection pool to the server under load. A request that fails is an answer that says so.

aiohttp parses HTTP in C, so that one process can make a load worth measuring.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import aiohttp

from easel.bench.harness.answers import Answer, Json
from easel.bench.harness.clock import Clock
from easel.bench.harness.errors import NoServer
from easel.bench.harness.events import EventParser

CONNECT_SECONDS = 5.0
TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes."""

    url: str
    api_key: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    timeout_seconds: float = 600.0  # of one request

    @property
    def base(self) -> str:
        """Without the /v1 that some like to give."""
        return self.url.rstrip("/").removesuffix("/v1")


class LoadClient:
    """Use as an asynchronous context manager."""

    def __init__(self, target: Target, clock: Clock) -> None:
        self.target = target
        self.clock = clock
        key = {"authorization": f"Bearer {target.api_key}"} if target.api_key else {}
        self._http = aiohttp.ClientSession(
            headers={**key, **dict(target.headers)},
            # Waiting for a connection of the pool would hide how slow the server is.
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=target.timeout_seconds, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def ask(self, path: str, body: Mapping[str, object]) -> Answer:
        """Send, and read the stream to its end."""
        answer = Answer()
        try:
            async with self._http.post(self.target.base + path, json=body) as response:
                if response.status == 200:
                    await self._read(response, answer)
                else:
                    await _refused(response, answer)
        except TimeoutError as error:
            answer.fail("timeout", str(error))
        except aiohttp.ClientConnectorError as error:
            answer.fail("no connection", _problem(error))
        except aiohttp.ClientError as error:
            answer.fail("broken connection", repr(error))
        return answer

    async def _read(self, response: aiohttp.ClientResponse, answer: Answer) -> None:
        parser = EventParser()
        async for piece in response.content.iter_any():
            at = self.clock.now()
            for event in parser.feed(piece):
                answer.take(event, at)
        answer.close()

    async def model(self) -> str:
        """The first model served. Raises NoServer."""
        listed = await self.json("/v1/models")
        try:
            return str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise NoServer(self.target.url, f"/v1/models lists no model: {listed}") from error

    async def json(self, path: str) -> Json:
        """A JSON object. Raises NoServer."""
        text = await self.text(path)
        try:
            return dict[str, Any](json.loads(text))
        except (ValueError, TypeError) as error:
            raise NoServer(self.target.url, f"{path} answers no JSON object") from error

    async def text(self, path: str) -> str:
        """Raises NoServer."""
        try:
            async with self._http.get(self.target.base + path) as response:
                text = await response.text()
                if response.status != 200:
                    raise NoServer(self.target.url, f"{path} answers {response.status}: {text[:200]}")
                return text
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NoServer(self.target.url, _problem(error)) from error


async def _refused(response: aiohttp.ClientResponse, answer: Answer) -> None:
    answer.fail(f"status {response.status}", (await response.read()).decode(errors="replace"))
    answer.retry_after = retry_seconds(response.headers.get("retry-after"), datetime.now(UTC))


def retry_seconds(header: str | None, now: datetime) -> float | None:
    """Retry-After as seconds, of either form that RFC 9110 knows; None where it is neither."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _problem(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    return str(error) or type(error).__name__
