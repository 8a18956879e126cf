"""What the scheduler actor remembers of replicas and faults."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from easel.cluster.cluster_state import ClusterState, Fault, FaultKind, GatewayReport
from easel.cluster.cluster_watch import FAULTS, SAME_SECONDS, STRIP, ClusterWatch
from easel.scheduler.messages import StepSample
from tests.fakes import digest


@dataclass(slots=True)
class World:
    """A watch under clocks that stand still."""

    now: float = 10.0
    wall: float = 1000.0
    watch: ClusterWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = ClusterWatch(lambda: self.now, lambda: self.wall)

    def hear(self, *replica_ids: str, **changes: Any) -> None:
        for replica_id in replica_ids:
            self.watch.heard(replace(digest(replica_id), **changes))

    def state(self, *replica_ids: str) -> ClusterState:
        return self.watch.state(replica_ids, waiting=0, lost=0)

    def faults(self) -> list[tuple[float, str, str | None]]:
        return [(fault.time, fault.kind.value, fault.replica) for fault in self.state().faults]


def sample(step: int) -> StepSample:
    return StepSample(step, 4, 8, 0.01, 0.02)


def test_the_last_steps_of_each_replica_are_kept_in_order() -> None:
    world = World()
    for first in range(0, 400, 8):
        world.hear("a", recent=tuple(sample(step) for step in range(first, first + 8)))
    world.hear("b", recent=(sample(1),))
    a, b = world.state("a", "b").replicas
    assert [one.step for one in a.strip] == list(range(400 - STRIP, 400))
    assert [one.step for one in b.strip] == [1]
    assert (a.digest.active, a.digest.recent) == ((), ())


def test_a_policy_is_as_old_as_the_first_digest_that_follows_it() -> None:
    world = World()
    world.hear("a", policy_epoch=1)
    world.now += 2.0
    world.hear("a", policy_epoch=1)
    assert world.state("a").replicas[0].policy_age_seconds == pytest.approx(2.0)
    world.hear("a", policy_epoch=2)
    assert world.state("a").replicas[0].policy_age_seconds == 0.0


def test_a_replica_that_is_lost_is_a_fault_and_is_shown_no_more() -> None:
    world = World()
    world.hear("a", "b")
    world.watch.gone("a", expected=False)
    assert world.faults() == [(1000.0, "replica_lost", "a")]
    assert [one.digest.replica_id for one in world.state("a", "b").replicas] == ["b"]


@pytest.mark.parametrize("said_by", ["itself", "the scheduler", "both"])
def test_a_replica_that_drains_says_so_once(said_by: str) -> None:
    world = World()
    world.hear("a")
    if said_by != "itself":
        world.watch.draining("a")
    for _ in range(3):
        world.hear("a", draining=said_by != "the scheduler")
    assert world.faults() == [(1000.0, "replica_draining", "a")]
    assert world.state("a").replicas[0].draining


def test_the_journal_going_and_coming_back_are_two_faults_however_often_it_is_looked_at() -> None:
    world = World()
    for away in (False, True, True, False, False):
        world.wall += 1.0
        world.watch.journal(away=away)
    assert world.faults() == [(1002.0, "journal_away", None), (1004.0, "journal_back", None)]


def test_faults_are_bounded() -> None:
    world = World()
    for index in range(2 * FAULTS):
        world.watch.gone(str(index), expected=False)
    assert [fault[2] for fault in world.faults()] == [str(index) for index in range(FAULTS, 2 * FAULTS)]


def test_two_gateways_that_see_one_restart_make_it_one_fault_and_bring_back_the_earlier_ones() -> None:
    world = World()
    earlier = Fault(900.0, FaultKind.REPLICA_LOST, "a")
    for gateway, seen_at in (("g", 1000.0), ("h", 1000.0 + SAME_SECONDS / 2)):
        restarted = Fault(seen_at, FaultKind.SCHEDULER_RESTARTED)
        told = world.watch.take(GatewayReport(gateway, faults=(earlier, restarted)))
    assert world.faults() == [(900.0, "replica_lost", "a"), (1000.0, "scheduler_restarted", None)]
    assert told.faults == world.state().faults
    world.watch.take(GatewayReport("g", faults=(Fault(2000.0, FaultKind.SCHEDULER_RESTARTED),)))
    assert len(world.faults()) == 3
