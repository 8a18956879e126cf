import asyncio
import json
from collections.abc import Callable

import pytest
from starlette.types import Message

from easel.cluster.gateway.disconnect import unless_disconnected
from easel.cluster.gateway.errors import ClientGone
from tests.cluster.gateway.fakes import CHAT, MODEL, FakeBackend, gateway_app, get, saying

pytestmark = pytest.mark.asyncio


class Connection:
    """The server's side of one HTTP connection, which leaves when told to."""

    def __init__(self, body: dict[str, object]) -> None:
        self.body = json.dumps(body).encode()
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.leave_after = 0  # messages sent to it; 0: never of its own accord
        self._body_read = False

    async def receive(self) -> Message:
        if not self._body_read:
            self._body_read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if len(self.sent) == self.leave_after:
            self.left.set()

    def scope(self) -> dict[str, object]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "path": CHAT,
            "raw_path": CHAT.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"content-type", b"application/json")],
            "server": ("gateway", 80),
            "client": ("client", 1),
        }


def chat_body(**fields: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}


async def leave_while_it_waits(backend: FakeBackend, connection: Connection) -> str:
    """Run a request whose client leaves once the backend waits; returns the metrics afterwards."""
    app = gateway_app(backend)
    serving = asyncio.create_task(app(connection.scope(), connection.receive, connection.send))
    await backend.holding.wait()
    connection.left.set()
    await serving
    return (await get(app, "/metrics")).text


@pytest.mark.parametrize("hold_after", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_request(stream: bool, hold_after: int) -> None:
    backend = saying("0123456789")
    backend.hold_after = hold_after
    metrics = await leave_while_it_waits(backend, Connection(chat_body(stream=stream)))
    assert backend.cancelled == ["chatcmpl-id-0"]
    assert "easel_requests_in_flight 0.0" in metrics
    assert "easel_generations_cancelled_total 1.0" in metrics


async def test_a_client_that_leaves_cancels_all_its_choices() -> None:
    backend = saying("0123456789")
    backend.hold_after = 1
    await leave_while_it_waits(backend, Connection(chat_body(n=3, stream=True)))
    assert sorted(backend.cancelled) == [f"chatcmpl-id-{index}" for index in range(3)]


async def test_a_client_that_leaves_at_the_headers_cancels_its_request() -> None:
    backend = saying("0123456789")
    backend.hold_after = 1
    connection = Connection(chat_body(stream=True))
    connection.leave_after = 1
    app = gateway_app(backend)
    await app(connection.scope(), connection.receive, connection.send)
    assert connection.sent[0]["type"] == "http.response.start"
    assert backend.cancelled == ["chatcmpl-id-0"]


async def test_a_send_that_fails_cancels_the_request() -> None:
    backend = saying("0123456789")
    backend.hold_after = 1
    connection = Connection(chat_body(stream=True))

    async def broken_send(message: Message) -> None:
        raise OSError("connection reset")

    with pytest.raises(OSError, match="connection reset"):
        await gateway_app(backend)(connection.scope(), connection.receive, broken_send)
    assert backend.cancelled == ["chatcmpl-id-0"]


async def test_work_that_ends_first_gives_its_result() -> None:
    connection = Connection({})

    async def work() -> str:
        return "done"

    assert await unless_disconnected(connection.receive, work()) == "done"


async def test_work_that_fails_raises_its_error() -> None:
    async def work() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        await unless_disconnected(Connection({}).receive, work())


async def test_work_is_over_when_the_client_s_leaving_is_reported() -> None:
    connection = Connection({})
    log: list[str] = []
    connection.left.set()

    def note(text: str) -> Callable[[], None]:
        return lambda: log.append(text)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            note("cleaned up")()

    with pytest.raises(ClientGone):
        await unless_disconnected(connection.receive, work())
    assert log == ["cleaned up"]
