"""Step quotas: every block ends within its steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.request import Schedule
from easel.worker.schedules import step_quotas


@pytest.mark.parametrize(
    ("block_length", "steps", "shares"),
    [(8, 4, [2, 2, 2, 2]), (8, 3, [3, 3, 2]), (8, 1, [8]), (16, 5, [4, 3, 3, 3, 3]), (4, 4, [1] * 4)],
)
def test_linear_gives_the_remainder_to_the_first_steps(
    block_length: int, steps: int, shares: list[int]
) -> None:
    assert list(step_quotas(block_length, steps, Schedule.LINEAR)[:steps]) == shares


@pytest.mark.parametrize(
    ("block_length", "steps", "shares"),
    # Masked after each step: 16·cos(π/8·s) = 14.8, 11.3, 6.1, 0; and 32·cos(π/6·s) = 27.7, 16, 0.
    [(16, 4, [2, 3, 5, 6]), (32, 3, [5, 11, 16]), (8, 1, [8])],
)
def test_cosine_decides_few_positions_first_and_many_last(
    block_length: int, steps: int, shares: list[int]
) -> None:
    assert list(step_quotas(block_length, steps, Schedule.COSINE)[:steps]) == shares


@given(st.integers(1, 64), st.integers(1, 200), st.sampled_from(Schedule))
def test_a_block_ends_within_its_steps_and_every_step_decides_something(
    block_length: int, steps: int, schedule: Schedule
) -> None:
    quotas = step_quotas(block_length, steps, schedule)
    assert len(quotas) == block_length
    assert min(quotas) >= 1
    assert sum(quotas[:steps]) >= block_length
