"""LoadValve: off by default, tighter step by step within bounds, back only after a calm while."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.valve import LEVELS, LOOSEN_SECONDS, TIGHTEN_SECONDS, LoadValve, ValveBounds

BOUNDS = ValveBounds(enabled=True, least_steps=4, least_threshold=0.6, most_entropy_bound=0.8)


def test_it_stays_closed_unless_the_operator_allows_it() -> None:
    valve = LoadValve(ValveBounds())
    assert all(valve.update(-5.0, float(i)) is None for i in range(20))


def test_it_tightens_one_step_at_a_time_and_stops_at_the_bounds() -> None:
    valve = LoadValve(BOUNDS)
    told = [valve.update(-1.0, i * TIGHTEN_SECONDS) for i in range(LEVELS + 3)]
    steps = [t.most_steps for t in told if t is not None]
    thresholds = [t.threshold for t in told if t is not None]
    bounds = [t.entropy_bound for t in told if t is not None]
    assert steps == [16, 8, 4, 4, 4, 4]
    assert thresholds[:3] == pytest.approx([0.8, 0.7, 0.6])
    assert bounds[:3] == pytest.approx([0.5, 0.65, 0.8])
    assert (thresholds[-1], bounds[-1]) == pytest.approx((0.6, 0.8))


def test_it_does_not_move_twice_before_the_first_move_can_show() -> None:
    valve = LoadValve(BOUNDS)
    for i in range(10):
        valve.update(-1.0, i * 0.09)
    assert valve.level == 1


def test_it_opens_again_only_after_a_calm_while() -> None:
    valve = LoadValve(BOUNDS)
    valve.update(-1.0, 0.0)
    assert valve.update(1.0, 1.0) is not None
    valve.update(-0.1, LOOSEN_SECONDS - 0.5)  # not calm after all, and tighter
    assert valve.level == 2
    assert valve.update(1.0, LOOSEN_SECONDS) is not None
    assert valve.update(None, 2 * LOOSEN_SECONDS) == BOUNDS.at(1)
    assert valve.update(None, 3 * LOOSEN_SECONDS) is None


@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.none() | st.floats(-5.0, 5.0)), max_size=60))
def test_it_never_leaves_its_bounds(updates: list[tuple[float, float | None]]) -> None:
    valve, now = LoadValve(BOUNDS), 0.0
    for pause, slack in updates:
        now += pause
        before = valve.level
        told = valve.update(slack, now)
        assert abs(valve.level - before) <= 1
        assert told is None or told.most_steps is None or told.most_steps >= BOUNDS.least_steps
        assert told is None or told.threshold is None or 0.6 <= told.threshold <= 0.9
        assert told is None or told.entropy_bound is None or 0.35 <= told.entropy_bound <= 0.8
