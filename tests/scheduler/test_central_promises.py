"""ClusterScheduler: deadlines, tenants, orders and policies."""

from dataclasses import replace

import pytest

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.errors import DeadlineImpossible, QueueFull, TenantLimit
from easel.scheduler.messages import ReplicaDigest
from easel.scheduler.tenants import TenantLimits
from easel.scheduler.valve import ValveBounds
from tests.fakes import digest

LIMITS = ClusterLimits(max_waiting=20, queue_ahead=1)


def _ticket(name: str, tenant: str = "", deadline: float | None = None, priority: int = 0) -> AdmissionTicket:
    return AdmissionTicket(name, 64, 32, (), tenant, priority, deadline_seconds=deadline)


def _digest(name: str, sequence: int = 1, active: tuple[str, ...] = ()) -> ReplicaDigest:
    """A step takes about 0.1 s and a block 4 of them, so 32 tokens take 3.3 s."""
    return replace(digest(name, sequence, active), cost=replace(digest(name).cost, constant=0.1))


def _cluster(*replicas: str, limits: ClusterLimits = LIMITS) -> ClusterScheduler:
    cluster = ClusterScheduler(limits)
    for replica_id in replicas:
        cluster.on_digest(_digest(replica_id), 0.0)
    return cluster


def _fill(cluster: ClusterScheduler, count: int, tenant: str = "") -> None:
    for i in range(count):
        cluster.admit(_ticket(f"{tenant}{i}", tenant), 0.0)
    cluster.dispatch(0.0)


def test_a_deadline_shorter_than_the_answer_is_refused_at_once() -> None:
    cluster = _cluster("x")
    with pytest.raises(DeadlineImpossible) as refused:
        cluster.admit(_ticket("a", deadline=1.0), 0.0)
    assert refused.value.predicted_seconds == pytest.approx(3.3, rel=0.1)
    assert (refused.value.deadline_seconds, cluster.waiting) == (1.0, 0)
    cluster.admit(_ticket("a", deadline=4.0), 0.0)


def test_who_waits_counts_against_a_deadline() -> None:
    cluster = _cluster("x")
    cluster.admit(_ticket("early", deadline=4.0), 0.0)
    _fill(cluster, 12)
    with pytest.raises(DeadlineImpossible) as refused:
        cluster.admit(_ticket("late", deadline=4.0), 0.0)
    assert refused.value.retry_after_seconds >= 0.5
    cluster.admit(_ticket("patient", deadline=60.0), 0.0)


def test_another_tenants_queue_counts_only_as_far_as_shares_are_fair() -> None:
    cluster = _cluster("x", limits=replace(LIMITS, max_waiting=200))
    _fill(cluster, 150, "many")
    with pytest.raises(DeadlineImpossible):
        cluster.admit(_ticket("own", "many", deadline=60.0), 0.0)
    cluster.admit(_ticket("other", "few", deadline=60.0), 0.0)


def _served_together(cluster: ClusterScheduler) -> int:
    """Of many who want their answer within 6 s, how many are let in; one alone takes about 3.3 s."""
    let_in = 0
    for i in range(6):
        try:
            cluster.admit(_ticket(f"p{i}", deadline=6.0), 0.0)
        except DeadlineImpossible:
            break
        let_in += len(cluster.dispatch(0.0))
    return let_in


def _wide(name: str) -> ReplicaDigest:
    """Every canvas adds half of what the first one takes; with four of them an answer takes 8 s."""
    cost = replace(digest(name).cost, constant=0.05, per_token=0.05 / 8)
    return replace(digest(name), cost=cost)


def test_an_idle_replica_is_not_thought_full() -> None:
    cluster = ClusterScheduler(LIMITS)
    cluster.on_digest(_wide("x"), 0.0)
    assert 1 <= _served_together(cluster) < 4


def test_nobody_joins_whom_it_would_make_late_until_they_are_done() -> None:
    cluster = ClusterScheduler(LIMITS)
    cluster.on_digest(_wide("x"), 0.0)
    let_in = _served_together(cluster)
    cluster.admit(_ticket("anybody"), 0.0)
    assert cluster.dispatch(0.0) == []
    cluster.admit(replace(_ticket("moved"), admitted=True), 0.0)
    assert [assignment.request_id for assignment in cluster.dispatch(0.0)] == ["moved"]
    for i in range(let_in):
        cluster.finished(f"p{i}", 32)
    assert [assignment.request_id for assignment in cluster.dispatch(0.0)] == ["anybody"]


def test_a_promise_is_not_broken_for_a_shorter_deadline() -> None:
    cluster = _cluster("x")
    _fill(cluster, 5)
    waits = 0
    for i in range(12):
        try:
            cluster.admit(_ticket(f"calm{i}", deadline=16.0), 0.0)
            waits += 1
        except DeadlineImpossible:
            break
    assert 2 <= waits < 12
    with pytest.raises(DeadlineImpossible):
        cluster.admit(_ticket("hasty", deadline=12.0), 0.0)


def test_without_replicas_nothing_can_be_predicted_and_nothing_is_refused() -> None:
    cluster = _cluster()
    cluster.admit(_ticket("a", deadline=1.0), 0.0)
    assert cluster.shed(0.9) == []
    ((request_id, error),) = cluster.shed(1.1)
    assert request_id == "a"
    assert isinstance(error, DeadlineImpossible)
    assert cluster.waiting == 0


def test_who_cannot_be_in_time_any_more_is_shed_and_its_tokens_given_back() -> None:
    limits = replace(LIMITS, tenants={"t": TenantLimits(max_requests=1)})
    cluster = _cluster("x", limits=limits)
    _fill(cluster, 8)
    cluster.admit(_ticket("a", "t", deadline=16.0), 0.0)
    assert cluster.shed(12.0) == []
    assert [name for name, _ in cluster.shed(13.5)] == ["a"]
    cluster.admit(_ticket("b", "t"), 13.5)


def test_one_that_was_admitted_before_is_neither_refused_nor_shed_nor_charged_again() -> None:
    limits = replace(LIMITS, max_waiting=3, tenants={"t": TenantLimits(tokens_per_minute=96, max_requests=1)})
    cluster = _cluster("x", limits=limits)
    cluster.admit(_ticket("a", "t"), 0.0)
    cluster.dispatch(0.0)
    assert cluster.remove_replica("x") == ["a"]
    for i in range(3):
        cluster.admit(_ticket(f"w{i}"), 0.0)
    with pytest.raises(QueueFull):
        cluster.admit(_ticket("w3"), 0.0)
    cluster.admit(replace(_ticket("a", "t", deadline=0.01), admitted=True), 0.0)
    assert cluster.shed(5.0) == []
    cluster.on_digest(_digest("y"), 5.0)
    assert "a" in {assignment.request_id for assignment in cluster.dispatch(5.0)}
    cluster.finished("a", 0)
    with pytest.raises(TenantLimit) as refused:
        cluster.admit(_ticket("b", "t"), 5.0)
    assert refused.value.limit == 96


def test_a_tenants_canvases_are_limited_and_the_others_go_on() -> None:
    cluster = _cluster("x", limits=replace(LIMITS, tenants={"t": TenantLimits(max_canvases=2)}))
    for i in range(3):
        cluster.admit(_ticket(f"t{i}", "t"), 0.0)
        cluster.admit(_ticket(f"u{i}", "u"), 0.0)
    sent = {assignment.request_id for assignment in cluster.dispatch(0.0)}
    assert sent == {"t0", "t1", "u0", "u1", "u2"}
    cluster.finished("u0", 32)
    assert cluster.dispatch(0.0) == []
    cluster.finished("t0", 32)
    assert [assignment.request_id for assignment in cluster.dispatch(0.0)] == ["t2"]


def test_a_draining_replica_gets_nothing_and_gives_all_back() -> None:
    cluster = _cluster("x", "y")
    cluster.on_digest(_digest("x", 2, ("a", "b")), 0.0)
    cluster.policies(0.0)
    cluster.drain("x")
    orders = cluster.orders("x", 0.0)
    assert (orders.hand_over, orders.drain) == (("a", "b"), True)
    assert orders.policy is not None
    _fill(cluster, 5)
    assert len(cluster.outstanding("y")) == 5
    cluster.admit(replace(_ticket("a"), admitted=True), 0.0)
    cluster.on_digest(_digest("x", 3, ("b",)), 0.1)
    assert cluster.orders("x", 0.1).hand_over == ("b",)
    cluster.finished("0")
    assert [(a.request_id, a.replica_id) for a in cluster.dispatch(0.1)] == [("a", "y")]


def test_a_long_queue_is_ordered_to_hand_over_once_a_slot_is_free_elsewhere() -> None:
    cluster = _cluster("x")
    _fill(cluster, 5)
    names = cluster.outstanding("x")
    busy = replace(_digest("x", 2, names), blocks_left=36.0, steps_left=9.0)
    cluster.on_digest(busy, 0.1)
    cluster.policies(0.1)
    assert cluster.orders("x", 0.1).hand_over == ()
    cluster.on_digest(_digest("y"), 0.2)
    cluster.policies(0.7)
    assert cluster.orders("x", 0.7).hand_over == ("4",)
    cluster.admit(replace(_ticket("4"), admitted=True), 0.8)
    assert [(a.request_id, a.replica_id) for a in cluster.dispatch(0.8)] == [("4", "y")]
    assert cluster.orders("x", 0.8).hand_over == ()


def test_nothing_is_rebalanced_if_the_operator_does_not_want_it() -> None:
    cluster = _cluster("x", limits=replace(LIMITS, rebalance=False))
    _fill(cluster, 5)
    cluster.on_digest(replace(_digest("x", 2, cluster.outstanding("x")), blocks_left=36.0), 0.1)
    cluster.on_digest(_digest("y"), 0.2)
    cluster.policies(0.7)
    assert cluster.orders("x", 0.7).hand_over == ()


def test_the_valve_of_a_replica_whose_requests_are_late_opens_and_no_other() -> None:
    cluster = _cluster("x", "y", limits=replace(LIMITS, valve=ValveBounds(enabled=True)))
    cluster.on_digest(replace(_digest("x", 2), least_slack=-0.5), 0.1)
    cluster.on_digest(replace(_digest("y", 2), least_slack=2.0), 0.1)
    policies = cluster.policies(0.2)
    assert policies["x"].tightening is not None
    assert policies["y"].tightening is None


def test_refusals_for_lack_of_time_tighten_all_valves() -> None:
    cluster = _cluster("x", "y", limits=replace(LIMITS, valve=ValveBounds(enabled=True)))
    _fill(cluster, 20)
    with pytest.raises(DeadlineImpossible):
        cluster.admit(_ticket("a", deadline=4.0), 0.0)
    assert all(policy.tightening is not None for policy in cluster.policies(0.2).values())


def test_a_deadline_nobody_could_meet_tightens_no_valve() -> None:
    cluster = _cluster("x", limits=replace(LIMITS, valve=ValveBounds(enabled=True)))
    _fill(cluster, 20)
    with pytest.raises(DeadlineImpossible):
        cluster.admit(_ticket("a", deadline=0.5), 0.0)
    assert cluster.policies(0.2)["x"].tightening is None


def test_policies_carry_what_the_operator_says_of_preemption() -> None:
    for preempt in (True, False):
        cluster = _cluster("x", limits=replace(LIMITS, preempt=preempt))
        assert cluster.policies(0.0)["x"].preempt is preempt


def test_predictions_that_were_too_hopeful_make_promises_more_careful() -> None:
    cluster = _cluster("x")
    cluster.admit(_ticket("a", deadline=4.5), 0.0)
    cluster.finished("a")
    now = 0.0
    for i in range(12):
        cluster.admit(_ticket(f"r{i}"), now)
        cluster.dispatch(now)
        now += 6.0
        cluster.on_digest(_digest("x", i + 2, (f"r{i}",)), now)
        cluster.finished(f"r{i}", 32)
    assert cluster.outlook.error.value == pytest.approx(2.7, abs=0.3)
    with pytest.raises(DeadlineImpossible):
        cluster.admit(_ticket("b", deadline=4.5), now)
    cluster.admit(_ticket("c", deadline=4.5), now + 300.0)


def test_short_answers_are_learned_and_believed() -> None:
    cluster, now = _cluster("x"), 0.0
    with pytest.raises(DeadlineImpossible):
        cluster.admit(_ticket("a", deadline=2.0), 0.0)
    for i in range(20):
        cluster.admit(_ticket(f"r{i}"), now)
        cluster.dispatch(now)
        now += 0.42
        cluster.on_digest(_digest("x", i + 2, (f"r{i}",)), now)
        cluster.finished(f"r{i}", 4)
    cluster.admit(_ticket("b", deadline=2.0), now)
