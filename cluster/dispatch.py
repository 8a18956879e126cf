"""The gateway's way into the cluster: place a request, relay its events, carry it over deaths."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Protocol

from easel.cluster.errors import JournalUnavailable, ReplicaLost, RetriesExhausted
from easel.cluster.journal_records import Admission, JournaledRequest
from easel.cluster.journal_writer import JournalWriter
from easel.cluster.progress import Progress
from easel.cluster.replica_losses import ReplicaLosses
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, GenerationTask, Placement
from easel.scheduler.prefix_cache import page_chain
from easel.scheduler.request import Request

LOGGER = logging.getLogger("easel.dispatch")

Event = BlockEvent | CanvasSnapshot


class Scheduler(Protocol):
    """The central scheduler, wherever it runs."""

    async def place(self, ticket: AdmissionTicket) -> Placement:
        """Waits for a replica. Raises QueueFull, NoReplica or SchedulerLost."""
        ...

    async def end(self, request_id: str) -> None:
        """The request needs no replica any more. Never raises."""
        ...

    async def report_lost(self, replica_id: str) -> None:
        """A replica did not answer. Never raises."""
        ...

    async def losses(self, known: int) -> tuple[int, list[str]]:
        """Waits for replicas lost after the first `known` losses; their ids and the new count."""
        ...

    async def status(self) -> dict[str, object]:
        """What an operator wants to see. Raises SchedulerLost."""
        ...


class Replicas(Protocol):
    """All worker replicas, by id."""

    def generate(self, replica_id: str, task: GenerationTask) -> AsyncGenerator[Event, None]:
        """One request's events. Closing cancels it. Raises ReplicaLost, StaleLease, RequestTooLong."""
        ...


class JournalReader(Protocol):
    """Where committed blocks are found again."""

    async def read(self, request_id: str) -> JournaledRequest | None:
        """Raises JournalUnavailable."""
        ...


class RayBackend:
    """Implements the gateway's Backend. One per gateway process; must be used from one event loop."""

    def __init__(
        self,
        scheduler: Scheduler,
        replicas: Replicas,
        journal: JournalReader,
        writer: JournalWriter,
        *,
        page_size: int | None,
        max_attempts: int = 4,
    ) -> None:
        self._scheduler = scheduler
        self._replicas = replicas
        self._journal = journal
        self._writer = writer
        self._page_size = page_size
        self._max_attempts = max_attempts
        self._losses = ReplicaLosses(scheduler.losses)
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._resumed = 0  # times a request was carried over to another replica

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Events of one request, in order, each block once, whichever replicas die meanwhile."""
        self._start()
        progress = Progress(request)
        excluded: frozenset[str] = frozenset()
        try:
            while len(excluded) < self._max_attempts:
                placement = await self._scheduler.place(self._ticket(progress.request, excluded))
                if not excluded:
                    self._writer.offer(Admission(request))
                async with aclosing(self._attempt(placement, progress)) as events:
                    async for event in events:
                        yield event
                if progress.finished:
                    return
                excluded |= {placement.replica_id}
                self._resumed += 1
            raise RetriesExhausted(request.request_id, len(excluded))
        finally:
            self._in_background(self._scheduler.end(request.request_id))

    async def ready(self) -> bool:
        self._start()
        return bool((await self._scheduler.status())["replicas"])

    async def status(self) -> dict[str, object]:
        self._start()
        status = await self._scheduler.status()
        status["resumed"] = self._resumed
        if self._writer.degraded:
            status["journal"] = "degraded"
        return status

    async def _attempt(self, placement: Placement, progress: Progress) -> AsyncGenerator[Event, None]:
        """Events from one replica; when it dies, what it had journaled beyond them."""
        task = GenerationTask(progress.request, placement.lease_epoch)
        events = self._losses.guard(placement.replica_id, self._replicas.generate(placement.replica_id, task))
        try:
            async with aclosing(events):
                async for event in events:
                    if progress.take(event):
                        yield event
                    if progress.finished:
                        return
            raise ReplicaLost(placement.replica_id, "its stream ended early")
        except ReplicaLost as lost:
            LOGGER.warning("request %s goes on elsewhere: %s", placement.request_id, lost)
            self._in_background(self._scheduler.report_lost(placement.replica_id))
        for block in await self._journaled(placement.request_id):
            if progress.take(block):
                yield block

    async def _journaled(self, request_id: str) -> tuple[BlockEvent, ...]:
        try:
            found = await self._journal.read(request_id)
        except JournalUnavailable as error:
            # The blocks will be computed again, to the same tokens.
            LOGGER.warning("request %s resumes without the journal: %s", request_id, error)
            return ()
        return found.blocks if found is not None else ()

    def _ticket(self, request: Request, excluded: frozenset[str]) -> AdmissionTicket:
        return AdmissionTicket(
            request_id=request.request_id,
            prompt_tokens=len(request.prefix),
            max_tokens=request.sampling.max_tokens - len(request.committed),
            page_hashes=self._page_hashes(request),
            tenant=request.tenant,
            priority=request.priority,
            excluded=excluded,
        )

    def _page_hashes(self, request: Request) -> tuple[bytes, ...]:
        if self._page_size is None:
            return ()
        return tuple(page_chain(request.prefix, self._page_size, request.tenant))

    def _start(self) -> None:
        """Background work needs the event loop that requests run in, so it starts with the first."""
        if not self._started:
            self._started = True
            self._in_background(self._writer.run())
            self._in_background(self._losses.run())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_of_background)

    def _end_of_background(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOGGER.error("background work of the gateway ended", exc_info=error)
