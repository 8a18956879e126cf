"""When a plan may be repeated: only while planning anew would lead to the same forward."""

from dataclasses import replace

import pytest

from easel.scheduler.cost import CostModel
from easel.scheduler.messages import BatchPlan, CanvasResult, PhasePolicy, StepResult
from easel.scheduler.phase import RowKind
from easel.scheduler.request import DiffusionParams
from tests.fakes import FakeReplica, bidirectional_shape, request, shape

POLICY = PhasePolicy(quantum=8)


def test_canvases_that_only_go_on_may_take_several_steps_in_a_row() -> None:
    replica = FakeReplica(shape(), policy=POLICY, min_steps=9, max_steps=9)
    for name in "ab":
        replica.submit(request(name, prompt=4, max_tokens=40))
    plans = [_step(replica) for _ in range(9)]
    opened = [any(row.kind is not RowKind.REUSE for row in plan.rows) for plan in plans]
    assert [plan.steps for plan in plans] == [1 if refresh else 8 for refresh in opened]
    assert sum(plan.steps == 8 for plan in plans) > 5


def test_a_policy_may_forbid_it() -> None:
    for quantum in (1, 0):
        replica = FakeReplica(shape(), policy=PhasePolicy(quantum=quantum), min_steps=5, max_steps=5)
        replica.submit(request("a", max_tokens=40))
        assert {plan.steps for plan in replica.drain()} == {1}


def test_requests_that_wait_for_a_slot_do_not_end_it() -> None:
    """There is none before a canvas is finished, and then it ends."""
    replica = FakeReplica(shape(slots=1), policy=POLICY, min_steps=5, max_steps=5)
    for name in "ab":
        replica.submit(request(name, prompt=4, max_tokens=40))
    plans = [_step(replica) for _ in range(6)]
    assert plans[2].steps == 8


def test_a_prompt_that_is_still_to_be_written_does() -> None:
    replica = FakeReplica(
        shape(pages=200), policy=replace(POLICY, refresh_tokens=8), min_steps=9, max_steps=9
    )
    replica.submit(request("running", prompt=4, max_tokens=40))
    for _ in range(3):
        _step(replica)
    replica.submit(request("long", prompt=80))
    assert [_step(replica).steps for _ in range(5)] == [1] * 5


def test_a_canvas_that_is_watched_is_seen_after_every_step() -> None:
    replica = FakeReplica(shape(), policy=POLICY, min_steps=5, max_steps=5)
    replica.submit(request("plain", max_tokens=8))
    replica.submit(replace(request("watched", max_tokens=8), snapshots=True))
    assert {plan.steps for plan in replica.drain()} == {1}
    replica.submit(request("after", max_tokens=8))
    assert {plan.steps for plan in replica.drain()} == {1, 8}


@pytest.mark.parametrize("bidirectional", [True, False])
def test_rows_that_differ_from_step_to_step_are_planned_each(bidirectional: bool) -> None:
    held = bidirectional_shape() if bidirectional else replace(shape(), partial=True)
    replica = FakeReplica(held, policy=POLICY, min_steps=5, max_steps=5)
    replica.submit(replace(request("a", max_tokens=8), diffusion=DiffusionParams(rebuild_every=2)))
    assert {plan.steps for plan in replica.drain()} == {1}


def test_steps_that_were_repeated_count_as_so_many() -> None:
    replica = FakeReplica(shape(), policy=POLICY, min_steps=5, max_steps=5)
    replica.submit(request("a", prompt=4, max_tokens=4))
    while (plan := replica.scheduler.plan(0.0)) is not None and plan.steps == 1:
        replica.finish(plan)
    assert plan is not None
    before = replica.scheduler.digest("r", 0)
    (row,) = plan.rows
    canvas = CanvasResult(row.request_id, row.slot, False, 4, 2, 0.5, entropy_sum=3.0)
    replica.scheduler.apply(plan, StepResult((canvas,), 0.3, steps=3), 1.0)
    after = replica.scheduler.digest("r", 1)
    assert after.steps == before.steps + 3
    assert after.reuse_tokens == before.reuse_tokens + 3 * row.length


def test_the_cost_of_a_step_is_learned_from_the_mean_of_repeated_ones() -> None:
    once, thrice = CostModel(), CostModel()
    for cost, steps in ((once, 1), (thrice, 3)):
        replica = FakeReplica(shape(), policy=POLICY, min_steps=90, max_steps=90)
        replica.scheduler.cost = cost
        replica.submit(request("a", prompt=4, max_tokens=4))
        for index in range(32):
            plan = replica.scheduler.plan(float(index))
            assert plan is not None
            result = replica.runner.run(plan)
            taken = min(steps, plan.steps)
            replica.scheduler.apply(plan, replace(result, seconds=0.01 * taken, steps=taken), index + 0.5)
    assert once.coefficients == thrice.coefficients


def _step(replica: FakeReplica) -> BatchPlan:
    plan = replica.step()
    assert plan is not None
    return plan
