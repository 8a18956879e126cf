"""What a gateway tells the scheduler actor of its requests, and what survives whose death."""

import asyncio
from dataclasses import dataclass, field

import pytest

from easel.cluster.cluster_state import ClusterState, GatewayReport, StoredTimeline, Told
from easel.cluster.cluster_watch import ClusterWatch
from easel.cluster.errors import SchedulerLost
from easel.cluster.gateway.timelines import Timelines
from easel.cluster.timeline_reports import TimelineReports

pytestmark = pytest.mark.asyncio


def a_watch() -> ClusterWatch:
    return ClusterWatch(lambda: 10.0, lambda: 1000.0)


@dataclass(slots=True)
class FakeActor:
    """The scheduler actor's part in this; can be away, and be restarted."""

    kept: ClusterWatch = field(default_factory=a_watch)
    away: bool = False
    reports: list[GatewayReport] = field(default_factory=list[GatewayReport])
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def take_report(self, report: GatewayReport) -> Told:
        self._require()
        self.reports.append(report)
        self.heard.set()
        return self.kept.take(report)

    async def watch(self) -> ClusterState:
        self._require()
        return self.kept.state((), 0, 0)

    async def timeline(self, answer_id: str) -> StoredTimeline | None:
        self._require()
        return self.kept.timeline(answer_id)

    def _require(self) -> None:
        if self.away:
            raise SchedulerLost(0.0)


@dataclass(slots=True)
class World:
    """One actor and a gateway that reports to it."""

    actor: FakeActor = field(default_factory=FakeActor)
    timelines: Timelines = field(default_factory=lambda: Timelines(lambda: 0.0, lambda: 1000.0))
    degraded: bool = False
    reports: TimelineReports = field(init=False)

    def __post_init__(self) -> None:
        self.reports = TimelineReports(
            self.timelines, self.actor, "g", lambda: self.degraded, pause_seconds=0.0
        )

    async def kinds(self, answer_id: str = "a") -> list[object]:
        timeline = await self.reports.timeline(answer_id)
        return [] if timeline is None else [event["kind"] for event in timeline.events]


async def test_only_what_is_new_is_sent() -> None:
    world = World()
    world.timelines.begin("a", "", 1000.0)
    await world.reports.report()
    world.timelines.placed("a-0", "r", 1)
    await world.reports.report()
    await world.reports.report()
    sent = [[event["kind"] for part in one.parts for event in part.events] for one in world.actor.reports]
    # The first report is repeated: until it is answered nobody knows which scheduler this is.
    assert sent == [["received"], ["received"], ["placed"], []]
    assert await world.kinds() == ["received", "placed"]


async def test_what_could_not_be_sent_is_sent_later() -> None:
    world = World()
    world.actor.away = True
    world.timelines.begin("a", "", 1000.0)
    with pytest.raises(SchedulerLost):
        await world.reports.report()
    world.actor.away = False
    await world.reports.report()
    assert await world.kinds() == ["received"]


async def test_a_scheduler_that_was_restarted_is_told_everything_anew_and_the_restart_is_a_fault() -> None:
    world = World()
    world.timelines.begin("a", "", 1000.0)
    world.actor.kept.gone("r", expected=False)
    await world.reports.report()
    world.actor.kept = a_watch()
    world.timelines.failed("a", SchedulerLost(1.0))
    await world.reports.report()
    assert await world.kinds() == ["received", "failed"]
    faults = (await world.reports.state()).faults
    assert [fault.kind for fault in faults] == ["replica_lost", "scheduler_restarted"]


async def test_a_report_is_bounded_and_the_rest_follows() -> None:
    world = World()
    await world.reports.report()
    for answer in range(100):
        world.timelines.begin(str(answer), "", 1000.0)
        for attempt in range(1, 30):
            world.timelines.placed(f"{answer}-0", "r", attempt)
    for _ in range(2):
        await world.reports.report()
    sizes = [sum(len(part.events) for part in one.parts) for one in world.actor.reports[-2:]]
    assert sizes == [2000, 1000]
    assert len(await world.kinds("99")) == 30


async def test_a_gateway_whose_writes_do_not_reach_the_journal_says_degraded() -> None:
    world = World()
    assert (await world.reports.state()).journal == "ok"
    world.degraded = True
    assert (await world.reports.state()).journal == "degraded"


async def test_reports_go_on_while_the_scheduler_is_away() -> None:
    world = World()
    world.actor.away = True
    world.timelines.begin("a", "", 1000.0)
    running = asyncio.create_task(world.reports.run())
    for _ in range(20):
        await asyncio.sleep(0)
    world.actor.away = False
    await world.actor.heard.wait()
    running.cancel()
    assert await world.kinds() == ["received"]
