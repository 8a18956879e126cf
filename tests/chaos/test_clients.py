"""Clients hold on through what a real one would, and through nothing else."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.chaos.clients import Client, Manner
from tests.chaos.connection import Connection, Failed
from tests.chaos.questions import Question
from tests.chaos.tally import Tally

pytestmark = pytest.mark.asyncio

STREAM = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10000\r\n\r\n"
DONE = b"data: [DONE]\n\n"
BUSY = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
UNKNOWN = b'HTTP/1.1 404 Gone\r\nConnection: close\r\nContent-Length: 27\r\n\r\n{"code":"answer_not_found"}'
BROKEN = b"HTTP/1.1 500 Broken\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def chunk(text: str, last_id: str) -> bytes:
    data = json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})
    return f"id: {last_id}\ndata: {data}\n\n".encode()


@dataclass(slots=True)
class Scripted:
    """A server that gives each connection its next reply, and breaks it off."""

    replies: list[bytes]
    heads: list[str] = field(default_factory=list[str])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.write(self.replies.pop(0))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def connected(server: Scripted) -> AsyncGenerator[Connection]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    connection = Connection(f"http://127.0.0.1:{port}", Tally(), pause_seconds=0.0)
    try:
        yield connection
    finally:
        await connection.close()
        listener.close()
        await listener.wait_closed()


def client(connection: Connection, manner: Manner = Manner.STREAM) -> Client:
    return Client(connection, Question("?"), manner, "model", random.Random(1))


async def test_a_broken_stream_goes_on_after_the_last_event_that_was_seen() -> None:
    server = Scripted([STREAM + chunk("a", "x/1"), STREAM + chunk("b", "x/2") + DONE])
    async with connected(server) as connection:
        assert await client(connection).ask() == [["a", "b"]]
    assert "last-event-id" not in server.heads[0]
    assert "last-event-id: x/1" in server.heads[1]


async def test_a_server_that_is_busy_is_asked_again_with_the_same_key() -> None:
    server = Scripted([BUSY, STREAM + chunk("a", "x/1") + DONE])
    async with connected(server) as connection:
        assert await client(connection).ask() == [["a"]]
        assert connection.tally.refused == 1
    keys = [line for head in server.heads for line in head.splitlines() if "idempotency-key" in line]
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_a_client_that_leaves_hangs_up_and_comes_back() -> None:
    server = Scripted(
        [STREAM + chunk("a", "x/1") + chunk("b", "x/2"), STREAM + chunk("b", "x/2"), STREAM + DONE]
    )
    async with connected(server) as connection:
        await client(connection, Manner.LEAVE).ask()
        assert connection.tally.resumed >= 1


async def test_an_answer_that_was_forgotten_is_asked_for_anew() -> None:
    server = Scripted([STREAM + chunk("a", "x/1"), UNKNOWN, UNKNOWN, STREAM + chunk("a", "y/1") + DONE])
    async with connected(server) as connection:
        asking = client(connection)
        assert await asking.ask() == [["a"]]
        assert asking.abandoned == [[["a"]]]
        assert len(connection.tally.asked_anew) == 1
    assert "last-event-id" in server.heads[2]
    assert "last-event-id" not in server.heads[3]


async def test_an_answer_that_is_unknown_for_a_moment_is_gone_on_with() -> None:
    server = Scripted([STREAM + chunk("a", "x/1"), UNKNOWN, STREAM + chunk("b", "x/2") + DONE])
    async with connected(server) as connection:
        assert await client(connection).ask() == [["a", "b"]]
        assert connection.tally.asked_anew == []


@pytest.mark.parametrize(
    "replies",
    [
        [BROKEN],
        [STREAM + b'event: error\ndata: {"error": {}}\n\n'],
        [STREAM + chunk("a", "x/1").split(b"\n", 1)[1]],  # no id to go on from
    ],
    ids=["status", "error event", "no id"],
)
async def test_what_cannot_be_made_good_fails(replies: list[bytes]) -> None:
    async with connected(Scripted(replies)) as connection:
        with pytest.raises(Failed):
            await client(connection).ask()
