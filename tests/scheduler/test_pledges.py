"""Pledges: nobody who was promised a time is made late by a newcomer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.pledges import Pledges


def test_a_slowdown_counts_from_now_on() -> None:
    pledges = Pledges()
    pledges.add("a", deadline=10.0, ends_at=6.0)
    assert pledges.endure(2.0, now=2.0)
    assert not pledges.endure(2.1, now=2.0)
    pledges.stretch(2.0, now=2.0)
    assert pledges.of["a"].ends_at == pytest.approx(10.0)
    assert not pledges.endure(1.01, now=2.0)
    pledges.stretch(0.5, now=4.0)
    assert pledges.of["a"].ends_at == pytest.approx(7.0)


def test_all_of_them_have_to_be_kept() -> None:
    pledges = Pledges()
    pledges.add("soon", deadline=5.0, ends_at=4.0)
    pledges.add("later", deadline=50.0, ends_at=4.0)
    assert not pledges.endure(1.5, now=0.0)
    pledges.discard("soon")
    assert pledges.endure(1.5, now=0.0)


def test_one_that_is_late_anyway_keeps_no_slot_empty() -> None:
    pledges = Pledges()
    pledges.add("late", deadline=5.0, ends_at=6.0)
    assert pledges.endure(10.0, now=0.0)


def test_one_that_should_have_ended_by_now_is_not_moved_into_the_past() -> None:
    pledges = Pledges()
    pledges.add("any moment", deadline=5.0, ends_at=1.0)
    pledges.stretch(3.0, now=2.0)
    assert pledges.of["any moment"].ends_at == 2.0


@given(st.lists(st.floats(1.0, 3.0), max_size=8), st.floats(0.0, 5.0))
def test_who_comes_and_goes_leaves_no_trace(factors: list[float], now: float) -> None:
    pledges = Pledges()
    pledges.add("a", deadline=1e9, ends_at=8.0)
    for factor in [*factors, *(1.0 / factor for factor in reversed(factors))]:
        pledges.stretch(factor, now)
    assert pledges.of["a"].ends_at == pytest.approx(8.0)
