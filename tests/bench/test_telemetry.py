"""How the cost of observing is worked out."""

from dataclasses import replace
from operator import attrgetter

import pytest

from easel.bench.telemetry import OFF, RATIOS, Round, costs, together


def test_variants_are_compared_round_by_round() -> None:
    plain = [Round(100, 10, seconds, seconds / 2, seconds / 4, 7) for seconds in (1.0, 4.0, 2.0)]
    dearer = [
        replace(one, seconds=one.seconds * 1.1, processor_seconds=one.processor_seconds * 1.2)
        for one in plain
    ]
    rounds = {OFF: plain} | dict.fromkeys(RATIOS, dearer)
    for of, expected in ((attrgetter("seconds"), 10.0), (attrgetter("other_seconds"), 40.0)):
        added = costs(rounds, of, of)
        assert list(added) == list(RATIOS)
        for one in added.values():
            assert (one.low, one.median, one.high) == pytest.approx((expected,) * 3)
    of_all = costs(rounds, lambda one: one.other_seconds, lambda one: one.processor_seconds)
    assert [one.median for one in of_all.values()] == pytest.approx([20.0, 20.0])


def test_the_turns_of_a_round_are_added_up() -> None:
    turns = [Round(3, 1, 0.5, 0.25, 0.125, 10), Round(5, 2, 1.0, 0.75, 0.5, 20)]
    assert together(turns) == Round(8, 3, 1.5, 1.0, 0.625, 30)
