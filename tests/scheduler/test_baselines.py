"""The composers kept for comparison do what their names say."""

import pytest

from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import PhasePolicy
from easel.scheduler.phase import Phase
from tests.fakes import FakeReplica, request, shape

SMALL_QUOTA = PhasePolicy(refresh_tokens=32)


def _active(replica: FakeReplica) -> list[set[str]]:
    return [{row.request_id for row in plan.rows} for plan in replica.plans]


def test_lockstep_admits_a_batch_only_when_the_one_before_has_ended() -> None:
    replica = FakeReplica(shape(slots=3, pages=200), ComposePolicy.LOCKSTEP)
    for i in range(7):
        replica.submit(request(f"r{i}", max_tokens=4 + 8 * (i % 3)))
    replica.drain()
    batches = [{"r0", "r1", "r2"}, {"r3", "r4", "r5"}, {"r6"}]
    order = [next(i for i, batch in enumerate(batches) if active <= batch) for active in _active(replica)]
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}


def test_lockstep_leaves_free_slots_empty_while_a_batch_runs() -> None:
    replica = FakeReplica(shape(slots=4, pages=200), ComposePolicy.LOCKSTEP)
    replica.submit(request("first", max_tokens=40))
    replica.step()
    replica.submit(request("second", max_tokens=4))
    while not replica.events["first"] or replica.events["first"][-1].finish is None:
        plan = replica.step()
        assert plan is not None
        assert {row.request_id for row in plan.rows} == {"first"}
    assert "second" in {row.request_id for row in (replica.step() or replica.plans[0]).rows}


def test_fcfs_admits_by_arrival_and_stops_at_the_first_misfit() -> None:
    replica = FakeReplica(shape(slots=4, pages=12), ComposePolicy.FCFS, min_steps=4)
    replica.submit(request("holder", prompt=60, max_tokens=4))
    replica.submit(request("big", prompt=60, max_tokens=4))
    replica.submit(request("small", prompt=8, max_tokens=4, priority=-1))
    plan = replica.step()
    assert plan is not None
    assert {row.request_id for row in plan.rows} == {"holder"}
    replica.drain()
    firsts = [
        next(i for i, active in enumerate(_active(replica)) if name in active) for name in ("big", "small")
    ]
    assert firsts == sorted(firsts)


def test_fcfs_lets_a_long_prompt_use_up_the_quota_before_those_behind_it() -> None:
    replica = FakeReplica(shape(slots=4, pages=200), ComposePolicy.FCFS, SMALL_QUOTA)
    replica.submit(request("long", prompt=320))
    replica.submit(request("short", prompt=8))
    for _ in range(9):
        plan = replica.step()
        assert plan is not None
        assert {row.request_id for row in plan.rows} == {"long"}


def test_segregated_plans_hold_one_phase_only_and_refresh_goes_first() -> None:
    replica = FakeReplica(shape(slots=4, pages=200), ComposePolicy.SEGREGATED, SMALL_QUOTA, min_steps=3)
    for i in range(6):
        replica.submit(request(f"r{i}", prompt=40))
        replica.step()
    replica.submit(request("late", prompt=100))
    replica.drain()
    assert all(len({row.kind.phase for row in plan.rows}) == 1 for plan in replica.plans)
    starts = [next(i for i, active in enumerate(_active(replica)) if f"r{j}" in active) for j in range(4)]
    opened = [_first_canvas(replica, f"r{j}") for j in range(4)]
    for start, end in zip(starts, opened, strict=True):
        assert all(plan.tokens_of(Phase.REUSE) == 0 for plan in replica.plans[start:end])


def _first_canvas(replica: FakeReplica, name: str) -> int:
    return next(
        i
        for i, plan in enumerate(replica.plans)
        if any(row.request_id == name and not row.kind.writes_pages for row in plan.rows)
    )


def test_balanced_needs_fewer_steps_than_the_others() -> None:
    steps: dict[ComposePolicy, int] = {}
    for policy in ComposePolicy:
        replica = FakeReplica(shape(slots=8, pages=400), policy, min_steps=2, max_steps=8)
        for i in range(40):
            replica.submit(request(f"r{i}", prompt=8 + i % 24, max_tokens=4 + i % 40))
        steps[policy] = len(replica.drain())
    assert steps[ComposePolicy.BALANCED] < steps[ComposePolicy.SEGREGATED]
    assert steps[ComposePolicy.BALANCED] < steps[ComposePolicy.LOCKSTEP]
    assert steps[ComposePolicy.BALANCED] <= 1.05 * steps[ComposePolicy.FCFS]


@pytest.mark.parametrize("policy", ComposePolicy)
def test_the_output_does_not_depend_on_the_composer(policy: ComposePolicy) -> None:
    replica, alone = FakeReplica(shape(), policy, eos_share=0.1), FakeReplica(shape(), eos_share=0.1)
    for i in range(12):
        replica.submit(request(f"r{i}", prompt=3 + 7 * i, max_tokens=30))
    replica.drain()
    for i in range(12):
        alone.submit(request(f"r{i}", prompt=3 + 7 * i, max_tokens=30))
        alone.drain()
    assert all(replica.output(f"r{i}") == alone.output(f"r{i}") for i in range(12))
