"""The gateway's way into the cluster: place a request, relay its events, carry it over deaths."""

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol, cast

from easel.cluster.attempt import Attempt, Course, Event, Outcome, Replicas
from easel.cluster.errors import JournalUnavailable, RetriesExhausted
from easel.cluster.journal_records import Admission, JournaledRequest
from easel.cluster.journal_writer import JournalWriter
from easel.cluster.placement_watch import PlacementWatch, Unwatched
from easel.cluster.progress import Progress
from easel.cluster.replica_losses import ReplicaLosses
from easel.cluster.tracing import current_traceparent
from easel.cluster.work_spans import note_move
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import BlockEvent, Placement
from easel.scheduler.prefix_cache import page_chain
from easel.scheduler.request import Request

LOGGER = logging.getLogger("easel.dispatch")

_REFUSED_SECONDS = 0.1
_LEFT = {Outcome.LOST: "replica_lost", Outcome.HANDED_OVER: "handed_over", Outcome.REFUSED: "refused"}


class Scheduler(Protocol):
    """The central scheduler, wherever it runs."""

    async def place(self, ticket: AdmissionTicket) -> Placement:
        """Waits for a replica. Raises QueueFull, NoReplica or SchedulerLost."""
        ...

    async def end(self, request_id: str, output_tokens: int) -> None:
        """The request needs no replica any more, having got that many tokens. Never raises."""
        ...

    async def report_lost(self, replica_id: str) -> None:
        """A replica did not answer. Never raises."""
        ...

    async def report_leaving(self, replica_id: str) -> None:
        """A replica takes no more requests. Never raises."""
        ...

    async def losses(self, known: int) -> tuple[int, list[str]]:
        """Waits for replicas lost after the first `known` losses; their ids and the new count."""
        ...

    async def status(self) -> dict[str, object]:
        """What an operator wants to see. Raises SchedulerLost."""
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
        clock: Callable[[], float] = time.monotonic,
        watch: PlacementWatch | None = None,
    ) -> None:
        self._watch = watch or Unwatched()
        self._scheduler = scheduler
        self._replicas = replicas
        self._journal = journal
        self._writer = writer
        self._page_size = page_size
        self._max_attempts = max_attempts
        self._clock = clock
        self._losses = ReplicaLosses(scheduler.losses, self._known_replicas, clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._resumed = 0  # times a request was carried over to another replica

    async def stream(self, request: Request, done: Sequence[BlockEvent] = ()) -> AsyncGenerator[Event, None]:
        """Events of one request, in order, each block once, whichever replicas die meanwhile.

        `done` are the blocks that `request.committed` is made of, when it is resumed.
        """
        self._start()
        course = Course(Progress.of(request, done), self._clock, self._clock())
        try:
            while course.failures < self._max_attempts:
                placement = await self._scheduler.place(self._ticket(course))
                course.placed(placement)
                self._watch.placed(request.request_id, placement.replica_id, course.placements)
                if course.placements == 1:
                    self._writer.offer(Admission(replace(request, committed=())))
                attempt = Attempt(placement, self._within_deadline(course), traceparent=current_traceparent())
                async with aclosing(attempt.run(self._replicas, self._losses)) as events:
                    async for event in events:
                        yield event
                async for block in self._after(attempt):
                    yield block
                if course.progress.finished:
                    return
                course.ended(attempt)
                if attempt.outcome is Outcome.REFUSED:
                    await asyncio.sleep(_REFUSED_SECONDS)  # there may be no other replica to go to
            raise RetriesExhausted(request.request_id, course.failures)
        finally:
            self._in_background(
                self._scheduler.end(request.request_id, len(course.progress.request.committed))
            )

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

    @property
    def journal_degraded(self) -> bool:
        """Whether what this gateway writes does not reach the journal now."""
        return self._writer.degraded

    @property
    def journal_buffered(self) -> int:
        """Records of this gateway that are not in the journal yet."""
        return self._writer.buffered

    @property
    def journal_lag_seconds(self) -> float:
        """Age of the oldest of them."""
        return self._writer.lag_seconds

    async def _after(self, attempt: Attempt) -> AsyncGenerator[BlockEvent, None]:
        """What a replica that died had journaled beyond what it sent."""
        replica_id = attempt.placement.replica_id
        if attempt.outcome in _LEFT:
            self._watch.left(attempt.placement.request_id, replica_id, _LEFT[attempt.outcome])
            note_move(attempt.placement, _LEFT[attempt.outcome])
        if attempt.outcome is Outcome.REFUSED:
            self._in_background(self._scheduler.report_leaving(replica_id))
        elif attempt.outcome is not Outcome.FINISHED:
            self._resumed += 1
        if attempt.outcome is not Outcome.LOST:
            return
        self._in_background(self._scheduler.report_lost(replica_id))
        for block in await self._journaled(attempt.placement.request_id):
            if attempt.progress.take(block):
                yield block

    def _within_deadline(self, course: Course) -> Progress:
        """The progress, its request told what is left of its deadline."""
        progress = course.progress
        progress.request = replace(progress.request, deadline_seconds=course.deadline_seconds)
        course.began = self._clock()
        return progress

    async def _journaled(self, request_id: str) -> tuple[BlockEvent, ...]:
        try:
            found = await self._journal.read(request_id)
        except JournalUnavailable as error:
            # The blocks will be computed again, to the same tokens.
            LOGGER.warning("request %s resumes without the journal: %s", request_id, error)
            return ()
        return found.blocks if found is not None else ()

    def _ticket(self, course: Course) -> AdmissionTicket:
        request = course.progress.request
        return AdmissionTicket(
            request_id=request.request_id,
            prompt_tokens=len(request.prefix),
            max_tokens=request.sampling.max_tokens - len(request.committed),
            page_hashes=self._page_hashes(request),
            tenant=request.tenant,
            priority=request.priority,
            excluded=course.avoided,
            deadline_seconds=course.deadline_seconds,
            lease_epoch=course.lease_epoch,
            admitted=course.placements > 0 or bool(request.committed),
            traceparent=current_traceparent(),
        )

    def _page_hashes(self, request: Request) -> tuple[bytes, ...]:
        if self._page_size is None:
            return ()
        return tuple(page_chain(request.prefix, self._page_size, request.tenant))

    async def _known_replicas(self) -> list[str]:
        return cast(list[str], (await self._scheduler.status())["replicas"])

    def _start(self) -> None:
        """Background work needs the event loop that requests run in, so it starts with the first."""
        if not self._started:
            self._started = True
            self._in_background(self._writer.run())
            self._in_background(self._losses.run())
            self._in_background(self._losses.watch())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        # What goes on behind all requests belongs to none, nor to its trace.
        task = asyncio.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._end_of_background)

    def _end_of_background(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOGGER.error("background work of the gateway ended", exc_info=error)
