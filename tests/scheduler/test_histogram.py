"""Counting how long steps take."""

from easel.scheduler.histogram import StepTimes
from easel.scheduler.messages import STEP_BOUNDS


def test_a_step_counts_in_the_range_whose_upper_end_it_does_not_exceed() -> None:
    times = StepTimes()
    for seconds in (0.0, STEP_BOUNDS[0], STEP_BOUNDS[0] * 1.001, STEP_BOUNDS[-1] + 1.0):
        times.add(seconds)
    counts = times.counts().counts
    assert counts[0] == 2
    assert counts[1] == 1
    assert counts[-1] == 1
    assert sum(counts) == 4


def test_repeated_steps_count_each() -> None:
    times = StepTimes()
    times.add(0.5, times=8)
    assert times.counts().sum_seconds == 4.0
    assert sum(times.counts().counts) == 8


def test_a_report_does_not_change_afterwards() -> None:
    times = StepTimes()
    before = times.counts()
    times.add(0.5)
    assert sum(before.counts) == 0
