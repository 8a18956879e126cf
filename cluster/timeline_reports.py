"""A gateway's way to the watch that the scheduler actor keeps: reports written behind, and questions.

A report goes out every moment, in one call, whatever the number of requests; no request waits for
it. When the actor has been restarted, which its incarnation tells, it is told everything anew.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from easel.cluster.cluster_state import ClusterState, Fault, FaultKind, GatewayReport, StoredTimeline, Told
from easel.cluster.errors import SchedulerLost
from easel.cluster.gateway.timelines import Timelines

LOGGER = logging.getLogger("easel.gateway")

PAUSE_SECONDS = 0.5  # between two reports
PATIENCE_SECONDS = 5.0  # for an answer


class Watcher(Protocol):
    """The scheduler actor, as far as it is asked here. Every method raises SchedulerLost at once."""

    async def take_report(self, report: GatewayReport) -> Told: ...

    async def watch(self) -> ClusterState: ...

    async def timeline(self, answer_id: str) -> StoredTimeline | None: ...


class TimelineReports:
    """Implements the gateway's ClusterSource, and keeps the actor up to date. Belongs to one event loop."""

    def __init__(
        self,
        timelines: Timelines,
        scheduler: Watcher,
        gateway: str,
        journal_degraded: Callable[[], bool],
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """`gateway` is an id of this process; `journal_degraded` says how its own exchanges went last."""
        self._timelines = timelines
        self._scheduler = scheduler
        self._gateway = gateway
        self._journal_degraded = journal_degraded
        self._pause_seconds = pause_seconds
        self._incarnation: str | None = None
        self._faults: tuple[Fault, ...] = ()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(self._pause_seconds)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self.report()
            except (SchedulerLost, TimeoutError) as error:
                LOGGER.debug("timelines were not reported: %s", error)

    async def report(self) -> None:
        """What is new since the last report. Raises SchedulerLost."""
        told = await self._send(())
        if told.incarnation != self._incarnation:
            self._timelines.report_anew()
            faults = self._faults
            if self._incarnation is not None:
                faults = (*faults, Fault(self._timelines.wall(), FaultKind.SCHEDULER_RESTARTED))
            told = await self._send(faults)
        self._incarnation = told.incarnation
        self._faults = told.faults

    async def state(self) -> ClusterState:
        """See ClusterSource."""
        state = await self._scheduler.watch()
        return replace(state, journal="degraded") if self._journal_degraded() else state

    async def timeline(self, answer_id: str) -> StoredTimeline | None:
        """See ClusterSource."""
        return await self._scheduler.timeline(answer_id)

    async def _send(self, faults: tuple[Fault, ...]) -> Told:
        parts = self._timelines.unreported()
        told = await self._scheduler.take_report(GatewayReport(self._gateway, parts, faults))
        self._timelines.reported(parts)
        return told
