"""The number of replicas over traces of load: it follows what lasts, and does not swing."""

import math
from collections.abc import Callable

import pytest

from easel.scheduler.fleet_load import FleetLoad, ReplicaLoad
from easel.scheduler.scaling import ReplicaScaler, ScalingBounds

BOUNDS = ScalingBounds(
    min_replicas=1,
    max_replicas=8,
    target_wait_seconds=2.0,
    target_load=0.7,
    up_delay_seconds=5.0,
    down_delay_seconds=60.0,
)
SLOTS = 16
TOKEN_SECONDS = 1e-4


class Cluster:
    """Replicas that come up some seconds after they are asked for, and share all requests evenly."""

    def __init__(self, bounds: ScalingBounds = BOUNDS, start: int = 1, start_seconds: float = 10.0) -> None:
        self.scaler = ReplicaScaler(bounds)
        self.target = start
        self.up = [-math.inf] * start  # when each one is there
        self.now = 0.0
        self.targets: list[int] = []
        self.start_seconds = start_seconds
        self.refresh_tokens = 0.0

    def run(self, seconds: int, requests: Callable[[float], int], refresh_share: float = 0.0) -> None:
        """One decision a second; `refresh_share` of one replica's time goes into prefill."""
        for _ in range(seconds):
            self.now += 1.0
            self.refresh_tokens += refresh_share / TOKEN_SECONDS
            self._decide(requests(self.now))

    def silent(self, seconds: int) -> None:
        """The scheduler does not answer."""
        for _ in range(seconds):
            self.now += 1.0
            self.targets.append(self.scaler.decide(None, self.target, self.now))

    def _decide(self, requests: int) -> None:
        there = sum(since <= self.now for since in self.up)
        running = min(requests, there * (SLOTS + 4))
        each = [running // there + (index < running % there) for index in range(there)]
        waiting = requests - running
        replicas = tuple(
            ReplicaLoad(str(index), each[index], SLOTS, int(self.refresh_tokens / there), TOKEN_SECONDS)
            for index in range(there)
        )
        load = FleetLoad(replicas, waiting, wait_seconds=waiting / (there * SLOTS) * 4.0)
        self.target = self.scaler.decide(load, self.target, self.now)
        self.targets.append(self.target)
        while len(self.up) < self.target:
            self.up.append(self.now + self.start_seconds)
        del self.up[self.target :]

    @property
    def changes(self) -> int:
        return sum(one != other for one, other in zip(self.targets, self.targets[1:], strict=False))


def constant(requests: int) -> Callable[[float], int]:
    return lambda _: requests


@pytest.mark.parametrize(("requests", "replicas"), [(1, 1), (11, 1), (12, 2), (40, 4), (500, 8)])
def test_the_number_settles_where_the_load_is_at_its_target(requests: int, replicas: int) -> None:
    cluster = Cluster()
    cluster.run(200, constant(requests))
    assert cluster.target == replicas
    assert set(cluster.targets[-100:]) == {replicas}


def test_a_short_burst_adds_nothing() -> None:
    cluster = Cluster()
    cluster.run(60, lambda now: 60 if 10 <= now < 14 else 2)
    assert set(cluster.targets) == {1}


def test_a_long_queue_at_most_doubles_the_replicas_at_once() -> None:
    cluster = Cluster()
    cluster.run(12, constant(500))
    assert cluster.target == 2
    cluster.run(200, constant(500))
    assert cluster.target == 8


def test_replicas_that_are_still_starting_are_not_asked_for_again() -> None:
    cluster = Cluster(start_seconds=100.0)
    cluster.run(90, constant(100))
    assert cluster.target == 2


def test_fewer_replicas_have_to_suffice_for_the_whole_delay() -> None:
    cluster = Cluster(start=4)
    cluster.run(59, constant(3))
    assert cluster.target == 4
    cluster.run(10, constant(3))
    assert cluster.target == 1


def test_a_need_within_the_delay_keeps_the_replicas_it_had() -> None:
    cluster = Cluster(start=4)
    cluster.run(40, constant(3))
    cluster.run(10, constant(40))
    cluster.run(55, constant(3))
    assert cluster.target == 4
    cluster.run(15, constant(3))
    assert cluster.target == 1


@pytest.mark.parametrize("middle", [8, 13, 22, 35, 57, 90])
def test_a_load_that_wavers_does_not_make_the_number_swing(middle: int) -> None:
    cluster = Cluster()
    cluster.run(300, constant(middle))
    settled = len(cluster.targets)
    cluster.run(900, lambda now: round(middle * (1 + 0.1 * math.sin(now / 7))))
    cluster.targets = cluster.targets[settled:]
    assert cluster.changes <= 1


def test_a_day_that_comes_and_goes_is_followed_up_and_down_once() -> None:
    cluster = Cluster()
    cluster.run(3600, lambda now: round(50 * (1 - math.cos(2 * math.pi * now / 3600))))
    assert max(cluster.targets) == 8
    assert cluster.target == 1
    rises = [after > before for before, after in zip(cluster.targets, cluster.targets[1:], strict=False)]
    falls = [after < before for before, after in zip(cluster.targets, cluster.targets[1:], strict=False)]
    assert falls.index(True) > len(rises) - 1 - rises[::-1].index(True)


def test_prefill_that_fills_the_replicas_asks_for_more() -> None:
    cluster = Cluster()
    cluster.run(60, constant(6), refresh_share=0.95)
    assert cluster.target == 2


def test_more_replicas_than_requests_are_never_asked_for() -> None:
    cluster = Cluster()
    cluster.run(60, constant(1), refresh_share=0.95)
    assert cluster.target == 1


def test_without_news_the_number_stays() -> None:
    cluster = Cluster(start=3)
    cluster.run(5, constant(30))
    cluster.silent(600)
    assert set(cluster.targets) == {3}


def test_what_was_wanted_before_a_silence_does_not_count() -> None:
    cluster = Cluster(start=3)
    cluster.run(50, constant(3))
    cluster.silent(30)
    cluster.run(30, constant(3))
    assert cluster.target == 3


def test_the_bounds_hold_when_they_are_changed() -> None:
    bounds = ScalingBounds(min_replicas=2, max_replicas=3, up_delay_seconds=0.0, down_delay_seconds=0.0)
    few, many = Cluster(bounds, start=1), Cluster(bounds, start=6)
    few.run(1, constant(0))
    many.run(1, constant(500))
    assert (few.target, many.target) == (2, 3)


def test_requests_of_a_replica_that_goes_count_for_those_that_stay() -> None:
    scaler = ReplicaScaler(ScalingBounds(up_delay_seconds=0.0))
    staying = (ReplicaLoad("a", 8, SLOTS, 0, 0.0),)
    assert scaler.decide(FleetLoad(staying, moving=0), 1, 1.0) == 1
    assert scaler.decide(FleetLoad(staying, moving=8), 1, 2.0) == 2
