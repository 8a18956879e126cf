"""One worker replica under Ray Serve: an engine in its own thread, reached through an event loop."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path

from ray import serve

from easel.cluster.config_sections import TelemetrySection
from easel.cluster.errors import ReplicaLost, SchedulerLost
from easel.cluster.heap import settle_heap
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_records import Record
from easel.cluster.journal_writer import JournalWriter
from easel.cluster.loading_progress import LoadingReports
from easel.cluster.replica_streams import Event, ReplicaStreams
from easel.cluster.scheduler_client import SchedulerClient
from easel.cluster.telemetry import start_telemetry
from easel.cluster.work_spans import GenerationSpan
from easel.scheduler.errors import SchedulerError
from easel.scheduler.messages import GenerationTask, ReplicaOrders
from easel.worker.config import EngineConfig
from easel.worker.engine_thread import EngineCallbacks, EngineThread
from easel.worker.errors import EngineStopped, WorkerError
from easel.worker.loading import load_engine

LOGGER = logging.getLogger("easel.replica")

_DIGEST_SECONDS = 1 / 15
_IDLE_DIGEST_SECONDS = 0.5  # nothing changes; well below the time after which silence means death
_DIGEST_PATIENCE_SECONDS = 2.0
_RENEWALS_PER_LEASE = 3


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """What a worker replica is told at start."""

    model: Path
    engine: EngineConfig
    journal: JournalSettings
    hang_seconds: float = 30.0  # a step that takes longer counts as the end of the replica
    telemetry: TelemetrySection | None = None


class WorkerReplica:
    """Runs requests for gateways, reports to the scheduler, writes blocks to the journal."""

    async def __init__(self, settings: ReplicaSettings) -> None:
        """Returns once the model is loaded. Raises WorkerError when it cannot be."""
        self._replica_id: str = serve.get_replica_context().replica_id.unique_id
        self._telemetry = start_telemetry(settings.telemetry, "worker", self._replica_id)
        self._scheduler = SchedulerClient()
        self._draining = False
        self._hang_seconds = settings.hang_seconds
        self._writer = JournalWriter(
            Journal(settings.journal),
            self._on_stale,
            settings.journal.flush_seconds,
            settings.journal.buffer_records,
            on_forgotten=self._on_forgotten,
        )
        reports = LoadingReports(self._report_loading)
        self._engine = EngineThread(
            lambda: load_engine(settings.model, settings.engine, progress=reports.advance), self._callbacks()
        )
        self._streams = ReplicaStreams(self._engine, self._writer.offer)
        try:
            await reports.run_beside(asyncio.to_thread(self._engine.start))
        except WorkerError as error:
            await self._scheduler.report_load_failure(str(error))
            raise
        self._tasks = [
            asyncio.create_task(self._writer.run()),
            asyncio.create_task(self._report_for_ever()),
            asyncio.create_task(self._renew_for_ever(settings.journal.lease_seconds / _RENEWALS_PER_LEASE)),
        ]
        settle_heap()

    async def generate(self, task: GenerationTask, *, replica_id: str) -> AsyncGenerator[Event, None]:
        """One request's events, the last with a `finish`. Closing cancels.

        Raises ReplicaLost when the request was meant for another replica, and otherwise what
        ReplicaStreams.run raises.
        """
        if replica_id != self._replica_id:
            raise ReplicaLost(replica_id, f"this is {self._replica_id}")
        with GenerationSpan(self._telemetry.tracing, task, replica_id) as span:
            async for event in self._streams.run(task):
                span.take(event)
                yield event

    async def check_health(self) -> None:
        """Called by Serve, which replaces the replica when this raises."""
        if self._engine.failure is not None:
            raise EngineStopped(repr(self._engine.failure))
        if self._hangs:
            raise EngineStopped(f"a step has taken {self._engine.busy_seconds:.0f} s")
        for task in self._tasks:
            if task.done():
                raise EngineStopped(f"background work ended: {task!r}")

    @property
    def _hangs(self) -> bool:
        return self._engine.busy_seconds > self._hang_seconds

    def _callbacks(self) -> EngineCallbacks:
        loop = asyncio.get_running_loop()

        def on_events(events: list[Event]) -> None:
            loop.call_soon_threadsafe(self._streams.deliver, events)

        def on_refused(request_id: str, error: SchedulerError) -> None:
            loop.call_soon_threadsafe(self._streams.refuse, request_id, error)

        def on_failure(error: BaseException) -> None:
            loop.call_soon_threadsafe(self._streams.fail_all, EngineStopped(repr(error)))

        return EngineCallbacks(on_events, on_refused, on_failure)

    async def _report_loading(self, done: int, total: int) -> None:
        await self._scheduler.loading(self._replica_id, done, total)

    def _on_stale(self, record: Record) -> None:
        self._streams.on_stale(record)

    def _on_forgotten(self, request_id: str) -> None:
        self._streams.on_forgotten(request_id)

    async def _report_for_ever(self) -> None:
        """Digests up, policies down. Without a scheduler the engine goes on by its last policy."""
        sequence = 0
        while self._engine.failure is None:
            if self._hangs:
                await asyncio.sleep(_IDLE_DIGEST_SECONDS)  # silence tells the scheduler
                continue
            sequence += 1
            digest = replace(
                self._engine.digest(self._replica_id, sequence),
                journal_buffered=self._writer.buffered,
                journal_lag_seconds=self._writer.lag_seconds,
            )
            try:
                async with asyncio.timeout(_DIGEST_PATIENCE_SECONDS):
                    orders = await self._scheduler.digest(digest)
                self._follow(orders)
            except (SchedulerLost, TimeoutError) as error:
                LOGGER.warning("digest %d was not delivered: %s", sequence, error)
            except EngineStopped:
                return
            await asyncio.sleep(_DIGEST_SECONDS if digest.active else _IDLE_DIGEST_SECONDS)

    def _follow(self, orders: ReplicaOrders) -> None:
        if orders.policy is not None:
            self._engine.set_policy(orders.policy)
        for request_id in orders.hand_over:
            self._engine.hand_over(request_id)
        if orders.drain and not self._draining:
            self._draining = True
            self._engine.drain()

    async def _renew_for_ever(self, pause_seconds: float) -> None:
        while True:
            await asyncio.sleep(pause_seconds)
            self._streams.renew_leases()
