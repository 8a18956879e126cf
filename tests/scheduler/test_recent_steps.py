"""What a replica tells of its last steps is bounded, in order, and told once."""

import pytest

from easel.scheduler.cost import Workload
from easel.scheduler.messages import StepSample
from easel.scheduler.recent_steps import KEPT, SENT, RecentSteps, thinned
from tests.fakes import FakeReplica, request, shape


def sample(step: int) -> StepSample:
    return StepSample(step, 0, 8, 0.01, 0.01)


def test_a_step_is_told_with_its_phases_and_its_time_and_only_once() -> None:
    replica = FakeReplica(shape())
    replica.submit(request("r", prompt=8, max_tokens=8))
    plan = replica.step()
    assert plan is not None
    (told,) = replica.scheduler.recent.take()
    assert (told.step, told.refresh_tokens + told.reuse_tokens) == (1, plan.tokens)
    assert (told.predicted_seconds, told.actual_seconds) == (plan.predicted_seconds, replica.now)
    assert replica.scheduler.recent.take() == ()


def test_what_nobody_takes_does_not_grow() -> None:
    recent = RecentSteps()
    for step in range(2 * KEPT):
        recent.add(step, Workload(), 0.01, 0.01)
    told = recent.take(2 * KEPT)
    assert (len(told), told[-1].step) == (KEPT, 2 * KEPT - 1)


@pytest.mark.parametrize("count", [0, 1, SENT, SENT + 1, 3 * SENT, KEPT])
@pytest.mark.parametrize("most", [1, 2, SENT, 32])
def test_thinning_keeps_the_order_the_newest_and_no_more_than_was_asked_for(count: int, most: int) -> None:
    steps = [kept.step for kept in thinned([sample(step) for step in range(count)], most)]
    assert len(steps) == min(count, most)
    assert steps == sorted(set(steps))
    assert steps[-1:] == [count - 1][:count]
    if len(steps) > 1:
        assert steps[0] == 0
