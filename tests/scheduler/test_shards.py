"""ShardedScheduler: each key and each replica in one shard, and replicas lent to where the queue is."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterLimits
from easel.scheduler.errors import QueueFull
from easel.scheduler.messages import CostCoefficients, ReplicaDigest
from easel.scheduler.shards import ShardedScheduler, ShardKey
from tests.fakes import digest

LIMITS = ClusterLimits(max_waiting=400, queue_ahead=1, rebalance=False)
SLOW = CostCoefficients(0.05, 1e-4, 1e-9, 1e-5)


def _digest(name: str, sequence: int = 1, active: tuple[str, ...] = ()) -> ReplicaDigest:
    return replace(digest(name, sequence, active), cost=SLOW)


def _cluster(replicas: int, shards: int = 2, *, lending: bool = True) -> ShardedScheduler:
    cluster = ShardedScheduler(LIMITS, shards=shards, lending=lending)
    for i in range(replicas):
        cluster.on_digest(_digest(f"x{i}"), 0.0)
    return cluster


def _tenant_of(cluster: ShardedScheduler, shard: int) -> str:
    names = (f"tenant{i}" for i in range(1000))
    return next(n for n in names if cluster.shard_of(AdmissionTicket("", 1, 1, tenant=n)) == shard)


class _Drive:
    """Serves what is placed: each request ends after two seconds."""

    def __init__(self, cluster: ShardedScheduler) -> None:
        self.cluster = cluster
        self.now = 0.0
        self._running: dict[str, tuple[str, float]] = {}
        self._sequence = 1
        self._sent = 0

    def send(self, tenant: str, count: int) -> None:
        for _ in range(count):
            self._sent += 1
            with suppress(QueueFull):
                self.cluster.admit(AdmissionTicket(f"r{self._sent}", 64, 32, tenant=tenant), self.now)

    def tick(self) -> int:
        self.now += 0.25
        self._sequence += 1
        for name in [name for name, (_, end) in self._running.items() if end <= self.now]:
            del self._running[name]
            self.cluster.finished(name, 32)
        for replica_id in self.cluster.replicas:
            active = tuple(name for name, (where, _) in self._running.items() if where == replica_id)
            self.cluster.on_digest(_digest(replica_id, self._sequence, active), self.now)
        self.cluster.policies(self.now)
        placed = self.cluster.dispatch(self.now)
        self._running.update({a.request_id: (a.replica_id, self.now + 2.0) for a in placed})
        return len(placed)

    def held(self) -> list[int]:
        return [len(shard.replicas) for shard in self.cluster.shards]


def test_it_serves_as_one_scheduler_does() -> None:
    cluster = _cluster(4)
    ticket = AdmissionTicket("a", 64, 32, tenant="t")
    cluster.admit(ticket, 0.0)
    assert cluster.waiting == 1
    (assignment,) = cluster.dispatch(0.0)
    assert assignment.replica_id in cluster.shards[cluster.shard_of(ticket)].replicas
    assert cluster.replica_of("a") == assignment.replica_id
    assert cluster.outstanding(assignment.replica_id) == ("a",)
    policies = cluster.policies(0.0)
    assert set(policies) == set(cluster.replicas)
    assert cluster.orders(assignment.replica_id, 0.0).policy == policies[assignment.replica_id]
    cluster.finished("a", 32)
    assert cluster.replica_of("a") is None
    assert cluster.expire(9.0) == list(cluster.replicas)
    assert cluster.shed(9.0) == []


def test_a_lost_replica_is_forgotten_by_its_shard() -> None:
    cluster = _cluster(2)
    cluster.admit(AdmissionTicket("a", 64, 32), 0.0)
    (assignment,) = cluster.dispatch(0.0)
    assert cluster.remove_replica(assignment.replica_id) == ["a"]
    assert len(cluster.replicas) == 1
    assert cluster.holding(assignment.replica_id) is None


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_replicas_are_spread_evenly_and_stay_when_others_come(shards: int) -> None:
    cluster = _cluster(0, shards)
    homes: dict[str, int] = {}
    for i in range(40):
        cluster.on_digest(_digest(f"x{i}"), 0.0)
        holdings = {f"x{j}": holding for j in range(i + 1) if (holding := cluster.holding(f"x{j}"))}
        assert all(holdings[name].home == home for name, home in homes.items())
        homes = {name: holding.home for name, holding in holdings.items()}
        counts = [len(shard.replicas) for shard in cluster.shards]
        assert max(counts) - min(counts) <= 2 or max(counts) <= -(-(i + 1) // shards)


def test_a_prefix_key_keeps_a_conversation_in_its_shard() -> None:
    cluster = ShardedScheduler(LIMITS, shards=8, key=ShardKey.PREFIX)
    chats = [(f"page{i}".encode(), b"more") for i in range(40)]
    shards = [cluster.shard_of(AdmissionTicket(f"r{i}", 64, 32, chat)) for i, chat in enumerate(chats)]
    again = [
        cluster.shard_of(AdmissionTicket(f"s{i}", 96, 32, (*chat, b"turn"))) for i, chat in enumerate(chats)
    ]
    assert shards == again
    assert len(set(shards)) > 4


def test_a_shard_with_a_queue_borrows_and_gives_back() -> None:
    cluster = _cluster(8)
    drive, tenant = _Drive(cluster), _tenant_of(cluster, 0)
    assert drive.held() == [4, 4]
    for _ in range(60):
        drive.send(tenant, 5)
        drive.tick()
    assert drive.held() == [7, 1]
    for _ in range(120):
        drive.tick()
    assert drive.held() == [4, 4]
    assert all(not holding.lent for name in cluster.replicas if (holding := cluster.holding(name)))


def test_lending_serves_more_when_load_is_skewed() -> None:
    served: list[int] = []
    for lending in (False, True):
        cluster = _cluster(8, lending=lending)
        drive, tenant = _Drive(cluster), _tenant_of(cluster, 0)
        placed = 0
        for _ in range(120):
            drive.send(tenant, 5)
            placed += drive.tick()
        served.append(placed)
    assert served[1] > 1.4 * served[0]


def test_nobody_lends_what_it_needs_itself() -> None:
    cluster = _cluster(6)
    drive, tenants = _Drive(cluster), [_tenant_of(cluster, shard) for shard in (0, 1)]
    for _ in range(60):
        for tenant in tenants:
            drive.send(tenant, 5)
        drive.tick()
        assert drive.held() == [3, 3]


def test_a_lender_gets_its_replicas_back_once_it_has_a_queue() -> None:
    cluster = _cluster(8)
    drive, tenants = _Drive(cluster), [_tenant_of(cluster, shard) for shard in (0, 1)]
    for _ in range(60):
        drive.send(tenants[0], 6)
        drive.tick()
    assert drive.held()[0] > 4
    for _ in range(60):
        for tenant in tenants:
            drive.send(tenant, 6)
        drive.tick()
    assert drive.held() == [4, 4]


def test_a_shard_that_lost_all_its_replicas_gets_another() -> None:
    cluster = _cluster(4)
    drive, tenants = _Drive(cluster), [_tenant_of(cluster, shard) for shard in (0, 1)]
    for replica_id in cluster.shards[0].replicas:
        cluster.remove_replica(replica_id)
    for _ in range(40):
        for tenant in tenants:
            drive.send(tenant, 3)
        drive.tick()
    assert drive.held() == [1, 1]


def test_fewer_replicas_than_shards_serve_everybody() -> None:
    cluster = _cluster(1, shards=4)
    for i in range(5):
        cluster.admit(AdmissionTicket(f"r{i}", 64, 32, tenant=f"tenant{i}"), 0.0)
    assert len(cluster.dispatch(0.0)) == 5


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=5, max_size=30))
def test_a_replica_belongs_to_exactly_one_shard(load: list[tuple[int, int]]) -> None:
    cluster = _cluster(5)
    drive, tenants = _Drive(cluster), [_tenant_of(cluster, shard) for shard in (0, 1)]
    epochs: dict[str, int] = {}
    for counts in load:
        for tenant, count in zip(tenants, counts, strict=True):
            drive.send(tenant, count)
        for _ in range(3):
            drive.tick()
            assert sorted(cluster.replicas) == [f"x{i}" for i in range(5)]
            assert min(drive.held()) >= 1
            for name in cluster.replicas:
                holding = cluster.holding(name)
                assert holding is not None
                assert name in cluster.shards[holding.holder].replicas
                assert holding.epoch >= epochs.get(name, 1)
                epochs[name] = holding.epoch
