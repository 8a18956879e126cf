"""The wire that faults cut."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.chaos.proxy import Cut, Proxy

pytestmark = pytest.mark.asyncio

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@dataclass(slots=True)
class Wired:
    """A proxy before a server that echoes, and the connections made through it."""

    proxy: Proxy
    connections: list[Streams] = field(default_factory=list[Streams])

    async def connect(self) -> Streams:
        self.connections.append(await asyncio.open_connection("127.0.0.1", self.proxy.port))
        return self.connections[-1]


@asynccontextmanager
async def wired() -> AsyncGenerator[Wired]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    found = Wired(Proxy(server.sockets[0].getsockname()[1]))
    await found.proxy.start()
    try:
        yield found
    finally:
        for _, writer in found.connections:
            writer.transport.abort()
        await found.proxy.stop()
        server.close()
        await server.wait_closed()


async def said(streams: Streams, text: bytes) -> bytes:
    """What comes back; nothing, when nothing does for a while."""
    reader, writer = streams
    writer.write(text)
    try:
        async with asyncio.timeout(0.2):
            return await reader.read(100)
    except (TimeoutError, ConnectionError):
        return b""


async def test_a_whole_wire_carries_both_ways() -> None:
    async with wired() as wire:
        assert await said(await wire.connect(), b"hello") == b"hello"


async def test_a_stalled_wire_delivers_late_what_was_sent() -> None:
    async with wired() as wire:
        old = await wire.connect()
        await said(old, b"hello")
        assert wire.proxy.cut(Cut.STALL) == 1
        new = await wire.connect()
        assert await said(old, b"one") == await said(new, b"two") == b""
        wire.proxy.mend()
        assert await old[0].read(100) == b"one"
        assert await new[0].read(100) == b"two"


async def test_a_reset_wire_ends_and_new_ones_are_refused_until_it_is_mended() -> None:
    async with wired() as wire:
        old = await wire.connect()
        await said(old, b"hello")
        wire.proxy.cut(Cut.RESET)
        assert await said(old, b"one") == b""
        assert await said(await wire.connect(), b"two") == b""
        wire.proxy.mend()
        assert await said(await wire.connect(), b"three") == b"three"


@pytest.mark.parametrize("how", list(Cut))
@pytest.mark.parametrize(("victim", "heard"), [(os.getpid(), b""), (1, b"hello")], ids=["us", "others"])
async def test_one_process_alone_can_be_cut_off(how: Cut, victim: int, heard: bytes) -> None:
    async with wired() as wire:
        old = await wire.connect()
        await said(old, b"hello")
        assert wire.proxy.cut(how, victim) == bool(not heard)
        assert await said(old, b"hello") == await said(await wire.connect(), b"hello") == heard
