"""The benchmark of planning: its work is what it says, and both queues do the same."""

import pytest

from easel.bench.plan_cost import (
    SHAPE,
    ScriptedCanvases,
    SortedQueue,
    compose_round,
    percentiles,
    placement_round,
    requests,
)
from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import BatchPlan
from easel.scheduler.queue import RefreshQueue


def _plans(queue: RefreshQueue, steps: int) -> list[BatchPlan]:
    scheduler, canvases, source = LocalScheduler(SHAPE, queue=queue), ScriptedCanvases(), requests()
    for _ in range(SHAPE.slots + 400):
        scheduler.submit(next(source), 0.0)
    plans: list[BatchPlan] = []
    for step in range(steps):
        plan = scheduler.plan(float(step))
        assert plan is not None
        plans.append(plan)
        scheduler.apply(plan, canvases.run(plan), float(step))
    return plans


def test_a_queue_that_is_sorted_anew_leads_to_the_same_plans() -> None:
    assert _plans(RefreshQueue(), 250) == _plans(SortedQueue(), 250)


def test_all_slots_are_busy_once_it_is_measured() -> None:
    last = _plans(RefreshQueue(), 150)[-1]
    assert len({row.slot for row in last.rows}) == SHAPE.slots


def test_percentiles_are_in_microseconds() -> None:
    found = percentiles([1e-6 * i for i in range(101)])
    assert (found.p50, found.p99) == (pytest.approx(50.0), pytest.approx(99.0))


def test_rounds_measure_something() -> None:
    plan, apply = compose_round(10, 20, RefreshQueue())
    placement = placement_round(10, 20)
    for taken in (plan, apply, placement):
        assert 0.0 < taken.p50 <= taken.p99
