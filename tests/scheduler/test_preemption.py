"""Preemption: a more urgent request takes a slot, the other one goes on later with the same blocks."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import PhasePolicy, RefreshOrder
from easel.scheduler.phase import RowKind
from easel.scheduler.preemption import MOST_PREEMPTIONS
from easel.scheduler.request import FinishReason, Priority, Request
from tests.fakes import FakeReplica, request, shape

BATCH, INTERACTIVE, STANDARD = Priority.BATCH, Priority.INTERACTIVE, Priority.STANDARD


def _replica(
    steps: int = 4, slots: int = 1, pages: int = 64, policy: PhasePolicy | None = None
) -> FakeReplica:
    """One that has finished a few blocks of that many steps, so that it knows what blocks take."""
    replica = FakeReplica(shape(slots, pages), policy=policy, min_steps=steps, max_steps=steps)
    replica.submit(request("earlier", prompt=4, max_tokens=40))
    replica.drain()
    return replica


def _steps(replica: FakeReplica, count: int) -> None:
    for _ in range(count):
        replica.step()


def _order_of_ends(replica: FakeReplica) -> list[str]:
    replica.drain()
    ends = {name: len(events) for name, events in replica.events.items()}
    seen: list[str] = []
    for plan in replica.plans:
        for row in plan.rows:
            if row.request_id in seen:
                seen.remove(row.request_id)
            seen.append(row.request_id)
    return [name for name in seen if ends[name]]


def _alone(task: Request, steps: int = 4) -> list[tuple[int, tuple[int, ...]]]:
    replica = FakeReplica(shape(), min_steps=steps, max_steps=steps)
    replica.submit(task)
    replica.drain()
    return _blocks(replica, task.request_id)


def _blocks(replica: FakeReplica, name: str) -> list[tuple[int, tuple[int, ...]]]:
    return [(event.block_index, event.tokens) for event in replica.events[name]]


def test_a_sooner_class_takes_the_slot_of_a_later_one() -> None:
    replica = _replica()
    batch = request("batch", prompt=4, max_tokens=40, priority=BATCH)
    replica.submit(batch)
    _steps(replica, 1)
    replica.submit(request("chat", prompt=4, max_tokens=8, priority=INTERACTIVE))
    _steps(replica, 1)
    assert {row.request_id for row in replica.plans[-1].rows} == {"chat"}
    replica.drain()
    assert _blocks(replica, "batch") == _alone(batch)
    assert {event.preemptions for event in replica.events["batch"]} == {1}
    assert {event.preemptions for event in replica.events["chat"]} == {0}
    assert replica.scheduler.digest("r", 0).preemptions == 1


def test_a_canvas_that_is_more_than_half_done_is_finished_first() -> None:
    replica = _replica(steps=8)
    replica.submit(request("batch", prompt=4, max_tokens=40, priority=BATCH))
    _steps(replica, 6)
    replica.submit(request("chat", prompt=4, max_tokens=8, priority=INTERACTIVE))
    _steps(replica, 2)
    assert {row.request_id for row in replica.plans[-1].rows} == {"batch"}
    assert [event.preemptions for event in replica.events["batch"]] == [0]
    _steps(replica, 1)
    assert {row.request_id for row in replica.plans[-1].rows} == {"chat"}


def test_who_is_gone_by_the_end_of_the_block_needs_no_slot() -> None:
    replica = _replica(steps=8)
    replica.submit(request("batch", prompt=4, max_tokens=40, priority=BATCH))
    _steps(replica, 6)
    replica.submit(request("chat", prompt=4, max_tokens=8, priority=INTERACTIVE))
    _steps(replica, 1)
    replica.scheduler.cancel("chat")
    replica.drain()
    assert {event.preemptions for event in replica.events["batch"]} == {0}


def test_what_was_written_is_found_again_in_the_cache() -> None:
    replica = _replica()
    replica.submit(request("batch", prompt=32, max_tokens=40, priority=BATCH))
    while len(replica.events["batch"]) < 4:
        replica.step()
    replica.submit(request("chat", prompt=4, max_tokens=4, priority=INTERACTIVE))
    first = len(replica.plans)
    replica.drain()
    rows = [row for plan in replica.plans[first:] for row in plan.rows if row.request_id == "batch"]
    again = [row for row in rows if row.kind is RowKind.PREFILL]
    assert sum(row.length for row in again) <= 8 + 4, "no more than a page and a block"
    assert {event.cached_tokens for event in replica.events["batch"]} == {0}, "as when it first got its slot"


def test_the_latest_class_gives_way_and_in_it_whoever_has_done_least() -> None:
    replica = _replica(slots=3, policy=PhasePolicy(opens_per_step=4))
    replica.submit(request("standard", prompt=4, max_tokens=60))
    replica.submit(request("old", prompt=4, max_tokens=60, priority=BATCH))
    _steps(replica, 9)
    replica.submit(request("young", prompt=4, max_tokens=60, priority=BATCH))
    _steps(replica, 1)
    replica.submit(request("chat", prompt=4, max_tokens=4, priority=INTERACTIVE))
    _steps(replica, 1)
    assert {row.request_id for row in replica.plans[-1].rows} == {"standard", "old", "chat"}


def test_as_many_give_way_as_wait_for_it() -> None:
    replica = _replica(steps=8, slots=4, pages=200)
    for i in range(4):
        replica.submit(request(f"batch{i}", prompt=4, max_tokens=80, priority=BATCH))
    _steps(replica, 2)
    for i in range(2):
        replica.submit(request(f"chat{i}", prompt=4, max_tokens=40, priority=INTERACTIVE))
    _steps(replica, 12)
    running = {row.request_id for row in replica.plans[-1].rows}
    assert {"chat0", "chat1"} <= running
    assert replica.scheduler.digest("r", 0).preemptions == 2


def test_pages_are_taken_too_if_that_is_what_lacks() -> None:
    replica = _replica(slots=4, pages=12)
    replica.submit(request("batch", prompt=32, max_tokens=40, priority=BATCH))
    _steps(replica, 2)
    replica.submit(request("chat", prompt=32, max_tokens=8, priority=INTERACTIVE))
    _steps(replica, 4)
    assert {row.request_id for row in replica.plans[-1].rows} == {"chat"}
    assert _order_of_ends(replica)[-2:] == ["chat", "batch"]


def test_nobody_gives_way_in_vain() -> None:
    """The pages of the one that could would not be enough."""
    replica = _replica(slots=3, pages=12)
    replica.submit(request("standard", prompt=32, max_tokens=30, priority=INTERACTIVE))
    replica.submit(request("batch", prompt=8, max_tokens=8, priority=BATCH))
    _steps(replica, 3)
    replica.submit(request("chat", prompt=60, max_tokens=20, priority=INTERACTIVE))
    replica.drain()
    assert replica.scheduler.digest("r", 0).preemptions == 0


@pytest.mark.parametrize(
    "policy", [PhasePolicy(preempt=False), PhasePolicy(order=RefreshOrder.ARRIVAL)], ids=["off", "arrival"]
)
def test_a_policy_may_forbid_it(policy: PhasePolicy) -> None:
    replica = _replica(policy=policy)
    replica.submit(request("batch", prompt=4, max_tokens=40, priority=BATCH))
    _steps(replica, 1)
    replica.submit(request("chat", prompt=4, max_tokens=4, priority=INTERACTIVE))
    assert _order_of_ends(replica)[-2:] == ["batch", "chat"]


def test_a_deadline_at_stake_takes_a_slot_from_one_of_its_class_that_has_none() -> None:
    replica = _replica()
    block = 4 * replica.scheduler.digest("r", 0).step_seconds
    replica.submit(request("patient", prompt=4, max_tokens=80))
    _steps(replica, 1)
    replica.submit(request("hurried", prompt=4, max_tokens=8, deadline=3 * block))
    replica.drain()
    assert {event.preemptions for event in replica.events["patient"]} == {1}
    assert replica.events["hurried"][-1].finish is FinishReason.LENGTH


def test_a_deadline_with_time_to_spare_takes_no_slot() -> None:
    replica = _replica()
    block = 4 * replica.scheduler.digest("r", 0).step_seconds
    replica.submit(request("patient", prompt=4, max_tokens=8))
    _steps(replica, 1)
    replica.submit(request("hurried", prompt=4, max_tokens=8, deadline=20 * block))
    assert _order_of_ends(replica)[-2:] == ["patient", "hurried"]


def test_one_who_has_a_deadline_too_keeps_its_slot() -> None:
    replica = _replica()
    block = 4 * replica.scheduler.digest("r", 0).step_seconds
    replica.submit(request("first", prompt=4, max_tokens=40, deadline=11 * block))
    _steps(replica, 1)
    replica.submit(request("second", prompt=4, max_tokens=8, deadline=3 * block))
    replica.drain()
    assert {event.preemptions for event in replica.events["first"]} == {0}


def test_a_request_that_lost_its_slot_often_enough_keeps_it() -> None:
    replica = _replica()
    batch = request("batch", prompt=4, max_tokens=40, priority=BATCH)
    replica.submit(batch)
    for i in range(400):
        replica.submit(request(f"chat{i}", prompt=4, max_tokens=4, priority=INTERACTIVE))
        _steps(replica, 2)
        if replica.events["batch"] and replica.events["batch"][-1].finish is not None:
            break
    assert _blocks(replica, "batch") == _alone(batch)
    assert max(event.preemptions for event in replica.events["batch"]) <= MOST_PREEMPTIONS


@pytest.mark.parametrize("policy", [ComposePolicy.FCFS, ComposePolicy.LOCKSTEP, ComposePolicy.SEGREGATED])
def test_the_baselines_do_not_preempt(policy: ComposePolicy) -> None:
    replica = FakeReplica(shape(slots=1), policy)
    replica.submit(request("batch", prompt=4, max_tokens=20, priority=BATCH))
    replica.step()
    replica.submit(request("chat", prompt=4, max_tokens=4, priority=INTERACTIVE))
    assert _order_of_ends(replica)[-2:] == ["batch", "chat"]


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from([14, 20, 60]))
def test_whatever_is_preempted_everybody_ends_with_the_blocks_it_has_alone(
    seed: int, slots: int, pages: int
) -> None:
    draw, replica = Random(seed), FakeReplica(shape(slots, pages), min_steps=1, max_steps=6)
    tasks = [
        request(
            f"r{i}",
            prompt=draw.randint(1, 40),
            max_tokens=draw.randint(1, 40),
            priority=draw.choice(list(Priority)),
            deadline=draw.choice([None, None, 0.005, 0.05]),
        )
        for i in range(12)
    ]
    for task in tasks:
        replica.submit(task)
        _steps(replica, draw.randint(0, 6))
    replica.drain()
    assert all(
        max(event.preemptions for event in events) <= MOST_PREEMPTIONS for events in replica.events.values()
    )
    for task in tasks:
        alone = FakeReplica(shape(), min_steps=1, max_steps=6)
        alone.submit(task)
        alone.drain()
        assert _blocks(replica, task.request_id) == _blocks(alone, task.request_id)
    assert replica.scheduler.digest("r", 0).pages_available == pages
