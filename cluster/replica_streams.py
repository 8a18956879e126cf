"""The requests running in one replica: from the engine's events to each caller's stream."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from easel.cluster.errors import StaleLease
from easel.cluster.journal_records import Admission, CommittedBlock, Finished, Record, Renewal
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, GenerationTask
from easel.scheduler.request import FinishReason, Request
from easel.worker.errors import EngineStopped

Event = BlockEvent | CanvasSnapshot

SNAPSHOTS_KEPT = 64  # events that wait for a slow reader before it misses snapshots


class EngineInbox(Protocol):
    """What is needed of an EngineThread."""

    def submit(self, request: Request) -> None:
        """Raises EngineStopped."""
        ...

    def cancel(self, request_id: str) -> None:
        """Raises EngineStopped."""
        ...


@dataclass(slots=True)
class _Running:
    """One request, from its submission to its last event."""

    task: GenerationTask
    blocks: list[BlockEvent] = field(default_factory=list[BlockEvent])  # finished here
    events: asyncio.Queue[Event | Exception] = field(default_factory=asyncio.Queue[Event | Exception])
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lease_epoch(self) -> int:
        return self.task.lease_epoch


class ReplicaStreams:
    """Belongs to one event loop, as the journal writer behind `offer` does."""

    def __init__(self, engine: EngineInbox, offer: Callable[[Record], None]) -> None:
        self._engine = engine
        self._offer = offer
        self._running: dict[str, _Running] = {}

    async def run(self, task: GenerationTask) -> AsyncGenerator[Event, None]:
        """Events of one request. Closing cancels it.

        Raises what the engine refused it with, StaleLease, or EngineStopped.
        """
        request_id = task.request.request_id
        await self._make_way(request_id)
        running = self._running[request_id] = _Running(task)
        try:
            self._engine.submit(task.request)
            while True:
                event = await running.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, BlockEvent) and event.finish is not None:
                    return
        finally:
            if not running.ended.is_set():
                with suppress(EngineStopped):
                    self._engine.cancel(request_id)

    def deliver(self, events: list[Event]) -> None:
        """Journal and hand out what a step brought."""
        for event in events:
            running = self._running.get(event.request_id)
            if running is None:
                continue
            if isinstance(event, BlockEvent):
                self._record(event, running)
            elif running.events.qsize() >= SNAPSHOTS_KEPT:
                continue  # the next one shows as much; blocks are never left out
            running.events.put_nowait(event)

    def refuse(self, request_id: str, error: Exception) -> None:
        """The engine did not take the request."""
        running = self._running.get(request_id)
        if running is not None:
            self._end(request_id, running)
            running.events.put_nowait(error)

    def fail_all(self, error: Exception) -> None:
        """The engine has stopped; no event will come any more."""
        for request_id in list(self._running):
            self.refuse(request_id, error)

    def on_stale(self, record: Record) -> None:
        """The journal refused a write: somebody else runs the request now."""
        running = self._running.get(record.request_id)
        if running is None or isinstance(record, Admission):
            return
        if record.lease_epoch == running.lease_epoch:
            self._engine.cancel(record.request_id)
            running.events.put_nowait(StaleLease(record.request_id, running.lease_epoch))

    def on_forgotten(self, request_id: str) -> None:
        """The journal has lost what it knew of a request: it is told everything again."""
        running = self._running.get(request_id)
        if running is None:
            return
        self._offer(Admission(replace(running.task.request, committed=())))
        for event in (*running.task.history, *running.blocks):
            self._offer(CommittedBlock(event, running.lease_epoch))

    def renew_leases(self) -> None:
        """To be called several times in a lease's life."""
        for request_id, running in self._running.items():
            self._offer(Renewal(request_id, running.lease_epoch))

    async def _make_way(self, request_id: str) -> None:
        """An earlier attempt at the same request may still be running here."""
        while (earlier := self._running.get(request_id)) is not None:
            self._engine.cancel(request_id)
            await earlier.ended.wait()

    def _record(self, event: BlockEvent, running: _Running) -> None:
        if event.block_index >= 0:
            running.blocks.append(event)
            self._offer(CommittedBlock(event, running.lease_epoch))
        if event.finish is None:
            return
        if event.finish is not FinishReason.HANDED_OVER:
            self._offer(Finished(event.request_id, event.finish, running.lease_epoch))
        self._end(event.request_id, running)

    def _end(self, request_id: str, running: _Running) -> None:
        del self._running[request_id]
        running.ended.set()
