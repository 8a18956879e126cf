"""A wire between the cluster and its Redis that can be cut, for everybody or for one process alone.

All clients use one address; whose connection it is shows in the port it comes from.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

import psutil

_CHUNK_BYTES = 64 * 1024


class Cut(StrEnum):
    """What a broken wire looks like to whoever uses it."""

    STALL = "stall"  # packets vanish and arrive when it is mended, as TCP sends them again
    RESET = "reset"  # connections end, new ones are refused


@dataclass(slots=True, eq=False)
class _Wire:
    """One connection, both ways."""

    peer_port: int
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    mended: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


@dataclass(slots=True)
class Proxy:
    """Forwards to `target_port` of this machine. Belongs to one event loop."""

    target_port: int
    port: int = 0  # once it has been started
    _wires: set[_Wire] = field(default_factory=set[_Wire])
    _cut: Cut | None = None
    _victim: int | None = None  # process id; None: everybody
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, how: Cut, victim: int | None = None) -> int:
        """Until `mend`, for the process of that id or for everybody; returns how many wires it hit."""
        self._cut, self._victim = how, victim
        ports = None if victim is None else _ports_of(victim)
        hit = [wire for wire in self._wires if ports is None or wire.peer_port in ports]
        for wire in hit:
            wire.mended.clear()
            if how is Cut.RESET:
                wire.reset()
        return len(hit)

    def mend(self) -> None:
        """Everybody is connected again; what was stalled is delivered."""
        self._cut = self._victim = None
        for wire in self._wires:
            wire.mended.set()

    def reset(self) -> None:
        """The server's process has ended: so have its connections."""
        for wire in list(self._wires):
            wire.reset()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._accept(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer_port = writer.get_extra_info("peername")[1]
        is_cut = self._cut is not None and (self._victim is None or peer_port in _ports_of(self._victim))
        if is_cut and self._cut is Cut.RESET:
            writer.transport.abort()
            return
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        wire = _Wire(peer_port, (writer, inner_writer))
        if not is_cut:
            wire.mended.set()
        await self._carry(wire, (reader, inner_writer), (inner_reader, writer))

    async def _carry(self, wire: _Wire, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self._wires.add(wire)
        tasks = [asyncio.create_task(_pump(*way, wire.mended.wait)) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            wire.reset()
            self._wires.discard(wire)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mended: Callable[[], Awaitable[object]]
) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            await mended()
            writer.write(data)
            await writer.drain()
    except OSError:
        return


def _ports_of(process_id: int) -> set[int]:
    """Local ports of its TCP connections."""
    try:
        connections = psutil.Process(process_id).net_connections(kind="tcp")
    except psutil.Error:
        return set()
    return {connection.laddr.port for connection in connections}
