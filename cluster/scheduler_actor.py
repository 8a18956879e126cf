"""The central scheduler as a named actor: the pure logic, plus waiting, leases and a clock.

It holds nothing that digests do not bring back, so Ray may restart it at any time.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from easel.cluster.cluster_state import ClusterState, GatewayReport, StoredTimeline, Told
from easel.cluster.cluster_watch import ClusterWatch
from easel.cluster.config_sections import TelemetrySection
from easel.cluster.errors import JournalUnavailable, NoReplica, Withdrawn
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.loss_news import LossNews
from easel.cluster.replica_load import load_of
from easel.cluster.serve_status import serve_stops_a_worker
from easel.cluster.tallies import ClusterTallies, tallies_of
from easel.cluster.telemetry import start_telemetry
from easel.cluster.work_spans import PlacementSpan
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.errors import Draining, SchedulerError
from easel.scheduler.fleet_load import FleetLoad, fleet_load
from easel.scheduler.messages import Placement, ReplicaDigest, ReplicaOrders

LOGGER = logging.getLogger("easel.scheduler")

ACTOR_NAME = "easel-scheduler"
NAMESPACE = "easel"
_TICK_SECONDS = 0.25
_AVOIDANCE_SECONDS = 3.0


class SchedulerActor:
    """All methods run in one event loop; callers are gateways and worker replicas."""

    def __init__(
        self,
        limits: ClusterLimits,
        journal: JournalSettings,
        no_replica_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        is_stopping: Callable[[], Awaitable[bool]] = serve_stops_a_worker,
        telemetry: TelemetrySection | None = None,
    ) -> None:
        self._tracing = start_telemetry(telemetry, "scheduler", ACTOR_NAME).tracing
        self._central = ClusterScheduler(limits)
        self._journal_settings = journal
        self._no_replica_seconds = no_replica_seconds
        self._clock = clock  # seconds, monotonic
        self._is_stopping = is_stopping
        self._wall = wall  # seconds since the Unix epoch
        self._watch = ClusterWatch(clock, wall)
        self._journal: Journal | None = None
        self._placing: dict[str, asyncio.Future[str]] = {}  # request id -> replica id, once it is known
        self._digests: dict[str, ReplicaDigest] = {}
        self._digests_heard = 0
        self._losses = LossNews()
        self._loading: dict[str, tuple[int, int]] = {}  # replica id -> tensors read, tensors in all
        self._load_failures: dict[str, None] = {}  # what replicas said that did not come up, each once
        self._last_epoch = 0
        self._closing = False
        self._calls: Counter[str] = Counter()  # of `place`, by request id
        self._avoided: dict[str, float] = {}  # replica id -> until when nothing is sent there
        self._leaving: set[str] = set()  # replicas that are to give back what they run
        self._ticker: asyncio.Task[None] | None = None

    async def place(self, ticket: AdmissionTicket) -> Placement:
        """Wait for a replica with room and take the lease in its name. Raises SchedulerError or NoReplica."""
        self._start()
        if self._closing and not ticket.admitted:
            raise Draining("the cluster")
        self._calls[ticket.request_id] += 1
        try:
            with PlacementSpan(self._tracing, ticket, self._central.waiting) as span:
                return span.placed(await self._place(ticket))
        finally:
            self._calls -= Counter((ticket.request_id,))

    async def is_placing(self, request_id: str) -> bool:
        """Whether a call of `place` for the request is under way; one to an earlier incarnation is not."""
        return request_id in self._calls

    async def _place(self, ticket: AdmissionTicket) -> Placement:
        ticket = replace(ticket, excluded=ticket.excluded | self._to_avoid())
        while True:
            self._central.admit(ticket, self._clock())
            self._refuse(ticket.request_id, Withdrawn(ticket.request_id))
            placed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._placing[ticket.request_id] = placed
            self._dispatch()
            replica_id = await self._wait_for(placed, ticket.request_id)
            epoch = await self._lease(ticket, replica_id)
            if replica_id in self._central.replicas:
                return Placement(ticket.request_id, replica_id, epoch)
            ticket = replace(ticket, admitted=True)  # the replica was lost while its lease was written

    async def end(self, request_id: str, output_tokens: int) -> None:
        """The request has finished, or its client left, after so many tokens."""
        self._central.finished(request_id, output_tokens)
        self._refuse(request_id, Withdrawn(request_id))
        self._dispatch()

    async def digest(self, digest: ReplicaDigest) -> ReplicaOrders:
        """A replica's report; the reply is what it is to do."""
        self._start()
        now = self._clock()
        self._digests[digest.replica_id] = digest
        self._digests_heard += 1
        self._central.on_digest(digest, now)
        self._watch.heard(digest)
        self._dispatch()
        orders = self._central.orders(digest.replica_id, now)
        return replace(orders, drain=digest.replica_id in self._leaving)

    async def loading(self, replica_id: str, done: int, total: int) -> None:
        """A replica that is not up yet has read that many of its tensors."""
        self._loading[replica_id] = (done, total)

    async def loads(self) -> dict[str, tuple[int, int]]:
        """Of every replica that said so: tensors read, tensors in all."""
        return dict(self._loading)

    async def report_load_failure(self, reason: str) -> None:
        """A replica could not load its model; Serve tells whoever deploys only that it failed."""
        self._load_failures[reason] = None

    async def load_failures(self) -> list[str]:
        """Why replicas did not come up, in the order they said so."""
        return list(self._load_failures)

    async def report_lost(self, replica_id: str) -> None:
        """A gateway found the replica gone. A digest makes it known again, should that be wrong."""
        await self._remove(replica_id)

    async def report_leaving(self, replica_id: str) -> None:
        """A gateway could not reach a replica that reports all the same: nothing is sent there for a while.

        If Serve is stopping a replica it is this one, and what runs there is handed over.
        """
        self._avoided[replica_id] = self._clock() + _AVOIDANCE_SECONDS
        if await self._is_stopping():
            await self.drain(replica_id)

    async def drain(self, replica_id: str) -> None:
        """Place nothing there any more, and have it give back what it runs at its blocks' ends."""
        if replica_id in self._central.replicas:
            self._leaving.add(replica_id)
            self._central.drain(replica_id)
            self._watch.draining(replica_id)
            self._dispatch()

    async def close_admission(self) -> None:
        """Refuse new requests; those that were admitted go on."""
        self._closing = True

    async def unfinished(self, replica_id: str | None = None) -> int:
        """Requests that wait or run, of all or of one replica."""
        if replica_id is not None:
            return len(self._central.outstanding(replica_id))
        running = sum(len(self._central.outstanding(name)) for name in self._central.replicas)
        return self._central.waiting + running

    async def replica_ids(self) -> list[str]:
        """Replicas that report."""
        return list(self._central.replicas)

    async def losses(self, known: int) -> tuple[int, list[str]]:
        """See LossNews.after."""
        return await self._losses.after(known)

    async def status(self) -> dict[str, object]:
        """For /health and operators."""
        self._start()
        return {
            "replicas": list(self._central.replicas),
            "waiting": self._central.waiting,
            "load": {name: load_of(self._digests[name]) for name in self._central.replicas},
            "lost_replicas": self._losses.unexpected,
            "journal": "degraded" if await self._journal_is_away() else "ok",
        }

    async def watch(self) -> ClusterState:
        """All that there is to see, of all tenants."""
        self._start()
        await self._journal_is_away()
        return self._watch.state(self._central.replicas, self._central.waiting, self._losses.unexpected)

    async def tallies(self) -> ClusterTallies:
        """Numbers alone, for /metrics."""
        return tallies_of(await self.watch(), self._central.predicted_wait(self._clock()))

    async def take_report(self, report: GatewayReport) -> Told:
        """What a gateway has seen."""
        return self._watch.take(report)

    async def timeline(self, answer_id: str) -> StoredTimeline | None:
        """What became of an answer, of whichever tenant."""
        return self._watch.timeline(answer_id)

    async def fleet_load(self) -> FleetLoad:
        """What there is to do, for whoever decides on the number of replicas."""
        return fleet_load(self._central, self._digests, self._leaving, self._clock())

    async def close(self) -> None:
        """Give up the connection and the clock; the actor is not used any more."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._journal is not None:
            await self._journal.close()

    async def _wait_for(self, placed: asyncio.Future[str], request_id: str) -> str:
        while True:
            heard = self._digests_heard
            done, _ = await asyncio.wait({placed}, timeout=self._no_replica_seconds)
            if done:
                return placed.result()
            if not self._central.replicas and self._digests_heard == heard:
                await self.end(request_id, 0)
                raise NoReplica(self._no_replica_seconds)

    def _dispatch(self) -> None:
        for assignment in self._central.dispatch(self._clock()):
            placed = self._placing.pop(assignment.request_id, None)
            if placed is None or placed.done():
                self._central.abandon(assignment.request_id)
            else:
                placed.set_result(assignment.replica_id)

    def _to_avoid(self) -> frozenset[str]:
        now = self._clock()
        self._avoided = {name: until for name, until in self._avoided.items() if until > now}
        return frozenset(self._avoided)

    def _refuse(self, request_id: str, error: SchedulerError | Withdrawn) -> None:
        placed = self._placing.pop(request_id, None)
        if placed is not None and not placed.done():
            placed.set_exception(error)

    async def _lease(self, ticket: AdmissionTicket, replica_id: str) -> int:
        """An epoch above all before. The wall clock is the floor, so that a restart cannot go back."""
        floor = max(self._last_epoch, ticket.lease_epoch, int(self._wall() * 1000))
        try:
            epoch = await self._connected().acquire_lease(ticket.request_id, replica_id, floor)
            self._watch.journal(away=False)
        except JournalUnavailable as error:
            LOGGER.warning("lease of %s is not in the journal: %s", ticket.request_id, error)
            self._watch.journal(away=True)
            epoch = floor + 1
        self._last_epoch = max(self._last_epoch, epoch)
        return epoch

    async def _journal_is_away(self) -> bool:
        try:
            await self._connected().ping()
            away = False
        except JournalUnavailable:
            away = True
        self._watch.journal(away=away)
        return away

    def _connected(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self._journal_settings)
        return self._journal

    async def _remove(self, replica_id: str) -> None:
        if replica_id not in self._central.replicas:
            return
        expected = replica_id in self._leaving
        LOGGER.log(logging.INFO if expected else logging.WARNING, "replica %s is gone", replica_id)
        self._central.remove_replica(replica_id)
        self._digests.pop(replica_id, None)
        self._watch.gone(replica_id, expected=expected)
        self._leaving.discard(replica_id)
        await self._losses.add(replica_id, expected=expected)

    def _start(self) -> None:
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick_for_ever())

    async def _tick_for_ever(self) -> None:
        while True:
            now = self._clock()
            for replica_id in self._central.expire(now):
                await self._remove(replica_id)
            self._central.policies(now)
            for request_id, error in self._central.shed(now):
                self._refuse(request_id, error)
            self._dispatch()
            await asyncio.sleep(_TICK_SECONDS)
