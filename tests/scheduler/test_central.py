"""ClusterScheduler: admission, dispatch, and what happens when replicas come and go."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.errors import QueueFull, Refused
from easel.scheduler.placement import Assignment
from easel.scheduler.prefix_cache import page_chain
from tests.fakes import digest

LIMITS = ClusterLimits(max_waiting=10, queue_ahead=1)


def _ticket(name: str, tenant: str = "", priority: int = 0, prompt: int = 64) -> AdmissionTicket:
    chain = tuple(page_chain(range(prompt), 8, tenant or name))
    return AdmissionTicket(name, prompt, 32, chain, tenant, priority)


def _cluster(*replicas: str, limits: ClusterLimits = LIMITS) -> ClusterScheduler:
    cluster = ClusterScheduler(limits)
    for replica_id in replicas:
        cluster.on_digest(digest(replica_id), 0.0)
    return cluster


def _send(cluster: ClusterScheduler, *names: str) -> dict[str, str]:
    for name in names:
        cluster.admit(_ticket(name), 0.0)
    return {a.request_id: a.replica_id for a in cluster.dispatch(0.0)}


def test_requests_wait_until_there_is_a_replica() -> None:
    cluster = _cluster()
    assert _send(cluster, "a") == {}
    assert cluster.waiting == 1
    cluster.on_digest(digest("x"), 0.0)
    assert cluster.dispatch(0.0) == [Assignment("a", "x")]
    assert (cluster.waiting, cluster.replica_of("a")) == (0, "x")


def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    cluster = _cluster()
    for i in range(10):
        cluster.admit(_ticket(f"r{i}"), 0.0)
    with pytest.raises(QueueFull) as without_replicas:
        cluster.admit(_ticket("late"), 0.0)
    assert (without_replicas.value.waiting, without_replicas.value.limit) == (10, 10)
    slow = replace(digest("x").cost, constant=0.5)
    cluster.on_digest(replace(digest("x"), cost=slow), 0.0)
    with pytest.raises(QueueFull) as with_one:
        cluster.admit(_ticket("late"), 0.0)
    for name in ("y", "z"):
        cluster.on_digest(replace(digest(name), cost=slow), 0.0)
    with pytest.raises(QueueFull) as with_three:
        cluster.admit(_ticket("late"), 0.0)
    waits = [full.value.retry_after_seconds for full in (without_replicas, with_one, with_three)]
    assert waits == sorted(waits, reverse=True)
    assert waits[2] == pytest.approx(waits[1] / 3)


def test_load_is_spread_over_equal_replicas() -> None:
    cluster = _cluster("x", "y")
    sent = _send(cluster, *(f"r{i}" for i in range(8)))
    assert sorted(sent.values()) == ["x"] * 4 + ["y"] * 4


def test_no_replica_gets_more_than_its_slots_and_the_queue_ahead() -> None:
    cluster = _cluster("x")
    sent = _send(cluster, *(f"r{i}" for i in range(9)))
    assert len(sent) == 4 + 1
    assert cluster.waiting == 4
    cluster.finished("r0")
    assert len(cluster.dispatch(0.0)) == 1


def test_a_sooner_class_has_room_where_later_ones_have_filled_the_queue_ahead() -> None:
    cluster = _cluster("x", limits=ClusterLimits(max_waiting=20, queue_ahead=1))
    for i in range(9):
        cluster.admit(_ticket(f"batch{i}", priority=1), 0.0)
    assert len(cluster.dispatch(0.0)) == 4 + 1
    for i in range(9):
        cluster.admit(_ticket(f"now{i}", priority=-1), 0.0)
    sent = [assignment.request_id for assignment in cluster.dispatch(0.0)]
    assert sent == [f"now{i}" for i in range(4 + 1)]
    for name in ("now0", "batch0"):
        cluster.finished(name)
    assert [assignment.request_id for assignment in cluster.dispatch(0.0)] == ["now5"]


def test_requests_that_a_digest_brings_count_against_every_class() -> None:
    cluster = _cluster()
    found = tuple(f"found{i}" for i in range(5))
    cluster.on_digest(replace(digest("x"), active=found), 0.0)
    cluster.admit(_ticket("now", priority=-1), 0.0)
    assert cluster.dispatch(0.0) == []


def test_a_request_follows_its_prefix() -> None:
    cluster = _cluster("x", "y", "z")
    shared = _ticket("a", tenant="t", prompt=256)
    cluster.admit(shared, 0.0)
    (first,) = cluster.dispatch(0.0)
    for name in ("b", "c"):
        cluster.admit(replace(shared, request_id=name), 0.0)
        cluster.admit(_ticket(f"{name}-other"), 0.0)
    sent = {a.request_id: a.replica_id for a in cluster.dispatch(0.0)}
    assert sent["b"] == first.replica_id


def test_priorities_and_tenants_are_honoured_in_dispatch() -> None:
    cluster = _cluster()
    for i in range(4):
        cluster.admit(_ticket(f"many{i}", tenant="many"), 0.0)
    cluster.admit(_ticket("few", tenant="few"), 0.0)
    cluster.admit(_ticket("urgent", tenant="many", priority=-1), 0.0)
    cluster.on_digest(digest("x"), 0.0)
    sent = [assignment.request_id for assignment in cluster.dispatch(0.0)]
    assert sent[0] == "urgent"
    assert sent.index("few") < 3


def test_a_ticket_that_fits_nowhere_does_not_hold_up_the_others() -> None:
    cluster = _cluster("x")
    large = digest("y").pages * digest("y").page_size + 1
    cluster.admit(replace(_ticket("stuck"), prompt_tokens=large), 0.0)
    assert _send(cluster, "a", "b") == {"a": "x", "b": "x"}
    cluster.on_digest(replace(digest("y"), pages=10_000, pages_available=10_000), 0.0)
    assert cluster.dispatch(0.0) == [Assignment("stuck", "y")]


def test_the_requests_of_a_dead_replica_are_reported_and_can_be_placed_again() -> None:
    cluster = _cluster("x", "y")
    sent = _send(cluster, "a", "b", "c", "d")
    lost = cluster.remove_replica("x")
    assert lost == [name for name, replica_id in sent.items() if replica_id == "x"]
    assert cluster.replicas == ("y",)
    for name in lost:
        cluster.admit(replace(_ticket(name), excluded=frozenset({"x"})), 0.0)
    assert {assignment.replica_id for assignment in cluster.dispatch(0.0)} == {"y"}
    assert cluster.remove_replica("x") == []


def test_a_silent_replica_is_reported_and_gets_no_more_work() -> None:
    cluster = _cluster("x", "y")
    cluster.on_digest(digest("y", sequence=2), 2.0)
    assert cluster.expire(3.0) == []
    assert cluster.expire(4.0) == ["x"]
    cluster.admit(_ticket("a"), 4.0)
    assert cluster.dispatch(4.0) == [Assignment("a", "y")]
    assert set(cluster.policies(4.0)) == {"y"}


def test_a_replica_that_is_heard_again_is_used_again() -> None:
    cluster = _cluster("x")
    assert cluster.expire(9.0) == ["x"]
    cluster.on_digest(digest("x", sequence=2), 9.0)
    assert cluster.expire(9.0) == []
    cluster.admit(_ticket("a"), 9.0)
    assert cluster.dispatch(9.0) == [Assignment("a", "x")]


def test_an_old_digest_does_not_undo_a_newer_one() -> None:
    cluster = _cluster()
    cluster.on_digest(digest("x", sequence=5, active=("a",)), 0.0)
    cluster.on_digest(digest("x", sequence=4), 0.1)
    assert cluster.outstanding("x") == ("a",)


def test_a_client_that_leaves_frees_its_place() -> None:
    cluster = _cluster("x")
    _send(cluster, *(f"r{i}" for i in range(6)))
    cluster.abandon("r5")
    assert cluster.waiting == 0
    cluster.abandon("r0")
    assert "r0" not in cluster.outstanding("x")
    cluster.abandon("never heard of")


def test_a_restarted_scheduler_adopts_what_runs() -> None:
    cluster = _cluster()
    cluster.on_digest(digest("x", active=("a", "b", "c", "d")), 0.0)
    assert cluster.outstanding("x") == ("a", "b", "c", "d")
    assert len(_send(cluster, "e", "f", "g")) == 1
    assert cluster.remove_replica("x") == ["a", "b", "c", "d", "e"]


def test_a_late_digest_does_not_revive_who_ended() -> None:
    cluster = _cluster("x")
    _send(cluster, "a")
    cluster.finished("a")
    cluster.on_digest(digest("x", sequence=2, active=("a",)), 0.1)
    assert cluster.outstanding("x") == ()


def test_a_request_placed_elsewhere_is_not_taken_back_by_its_old_replica() -> None:
    cluster = _cluster("x", "y")
    cluster.admit(replace(_ticket("a"), excluded=frozenset({"x"})), 0.0)
    cluster.dispatch(0.0)
    cluster.on_digest(digest("x", sequence=2, active=("a",)), 0.1)
    assert (cluster.replica_of("a"), cluster.outstanding("x")) == ("y", ())


def test_an_assignment_that_never_arrived_is_released_after_a_grace_period() -> None:
    cluster = _cluster("x")
    _send(cluster, "a")
    cluster.on_digest(digest("x", sequence=2), 4.9)
    assert cluster.outstanding("x") == ("a",)
    cluster.on_digest(digest("x", sequence=3), 5.0)
    assert cluster.outstanding("x") == ()


def test_an_assignment_a_digest_listed_and_the_next_does_not_has_ended() -> None:
    cluster = _cluster("x")
    _send(cluster, "a")
    cluster.on_digest(digest("x", sequence=2, active=("a",)), 0.1)
    cluster.on_digest(digest("x", sequence=3), 0.2)
    assert cluster.outstanding("x") == ()


def test_epochs_grow_also_after_a_restart() -> None:
    cluster = _cluster("x")
    first, second = cluster.policies(0.0)["x"], cluster.policies(0.0)["x"]
    assert second.epoch > first.epoch
    restarted = ClusterScheduler(LIMITS)
    restarted.on_digest(replace(digest("x"), policy_epoch=second.epoch), 0.0)
    assert restarted.policies(0.0)["x"].epoch > second.epoch


@given(st.lists(st.tuples(st.sampled_from("aabdfgrskn"), st.integers(0, 11)), max_size=120))
def test_every_request_is_in_exactly_one_place(events: list[tuple[str, int]]) -> None:
    cluster = _cluster("x", "y", limits=ClusterLimits(max_waiting=6, queue_ahead=1))
    alive: set[str] = set()
    now, sequence = 0.0, 1
    for action, number in events:
        now, sequence, name, replica_id = now + 0.3, sequence + 1, f"r{number}", "xy"[number % 2]
        if action in "ab":
            alive.discard(name)
            with suppress(Refused):
                cluster.admit(replace(_ticket(name, f"t{number % 3}"), deadline_seconds=1.0 + number), now)
                alive.add(name)
        elif action == "d":
            assert all(assignment.request_id in alive for assignment in cluster.dispatch(now))
        elif action == "f":
            cluster.finished(name, number)
            alive.discard(name)
        elif action == "k":
            alive -= set(cluster.remove_replica(replica_id))
        elif action == "s":
            alive -= {request_id for request_id, _ in cluster.shed(now)}
        elif action == "n":
            cluster.drain(replica_id)
        else:
            cluster.on_digest(digest(replica_id, sequence, cluster.outstanding(replica_id)), now)
        late = {request_id for request_id, _ in cluster.shed(now)}
        alive -= late
        placed = [name for replica_id in cluster.replicas for name in cluster.outstanding(replica_id)]
        assert len(placed) == len(set(placed))
        assert len(placed) + cluster.waiting == len(alive)
        assert cluster.waiting <= 6
        assert all(cluster.replica_of(name) is not None for name in placed)
        assert all(len(cluster.outstanding(replica_id)) <= 5 for replica_id in cluster.replicas)
        accounts = [cluster._ledger.account(f"t{i}") for i in range(3)]
        assert sum(account.requests for account in accounts) == len(alive)
        assert sum(account.canvases for account in accounts) == len(placed)
