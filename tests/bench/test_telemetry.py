"""How the cost of observing is worked out."""

import pytest

from easel.bench.telemetry import OFF, RATIOS, Round, costs, together


def test_variants_are_compared_round_by_round() -> None:
    plain = [Round(100, 10, seconds, seconds / 2) for seconds in (1.0, 4.0, 2.0)]
    dearer = [Round(one.tokens, 10, one.seconds * 1.1, one.processor_seconds) for one in plain]
    rounds = {OFF: plain} | dict.fromkeys(RATIOS, dearer)
    slower = costs(rounds, lambda one: one.seconds / one.tokens)
    assert list(slower) == list(RATIOS)
    for added in slower.values():
        assert (added.low, added.median, added.high) == pytest.approx((10.0, 10.0, 10.0))
    assert all(added.median == 0.0 for added in costs(rounds, lambda one: one.processor_seconds).values())


def test_the_turns_of_a_round_are_added_up() -> None:
    assert together([Round(3, 1, 0.5, 0.25), Round(5, 2, 1.0, 0.75)]) == Round(8, 3, 1.5, 1.0)
