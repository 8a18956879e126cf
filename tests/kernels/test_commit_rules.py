"""Commit rules against what they promise, written as loops."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from easel.kernels.commit_rules import RULES, CanvasView, Rule, accept
from easel.scheduler.request import CommitRule
from tests.worker.values import ints

BLOCK = 6


def test_static_schedule_takes_the_most_confident_up_to_the_quota() -> None:
    view = _view([0.1, 0.9, 0.5, 0.7, 0.2, 0.3], quota=3)
    assert _taken(Rule.STATIC_SCHEDULE, view) == [1, 2, 3]


def test_confidence_threshold_takes_all_above_it_and_none_that_equal_it() -> None:
    view = _view([0.5, 0.875, 0.9, 0.95, 0.2, 0.99], quota=1, threshold=0.875)
    assert _taken(Rule.CONFIDENCE_THRESHOLD, view) == [2, 3, 5]


def test_confidence_threshold_takes_the_quota_when_few_are_above_it() -> None:
    view = _view([0.5, 0.8, 0.95, 0.3, 0.2, 0.1], quota=2, threshold=0.9)
    assert _taken(Rule.CONFIDENCE_THRESHOLD, view) == [1, 2]


def test_entropy_bound_takes_the_least_uncertain_while_their_sum_is_below_the_bound() -> None:
    view = _view([0.5] * 6, entropy=[0.25, 1.0, 0.125, 0.5, 2.0, 3.0], quota=1, entropy_bound=1.0)
    assert _taken(Rule.ENTROPY_BOUND, view) == [0, 2, 3]
    assert _taken(Rule.ENTROPY_BOUND, replace(view, entropy_bound=torch.tensor([0.875]))) == [0, 2]


def test_entropy_bound_of_zero_still_takes_the_quota() -> None:
    view = _view([0.5] * 6, entropy=[0.0, 1.0, 0.125, 0.5, 2.0, 3.0], quota=2, entropy_bound=0.0)
    assert _taken(Rule.ENTROPY_BOUND, view) == [0, 2]


@pytest.mark.parametrize("rule", list(Rule))
def test_among_equals_the_earlier_position_is_taken(rule: Rule) -> None:
    view = _view([0.5] * 6, entropy=[1.0] * 6, undecided=[False, True, True, True, True, True], quota=2)
    assert _taken(rule, view) == [1, 2]


@pytest.mark.parametrize("rule", list(Rule))
def test_a_decided_position_is_never_taken_even_if_surest(rule: Rule) -> None:
    view = _view(
        [1.0, 1.0, 0.4, 1.0, 1.0, 0.3],
        entropy=[0.0, 0.0, 1.0, 0.0, 0.0, 1.0],
        undecided=[False, False, True, False, False, True],
        quota=6,
    )
    assert _taken(rule, view) == [2, 5]


CANVAS = st.tuples(
    st.sampled_from(list(Rule)),
    st.lists(st.booleans(), min_size=BLOCK, max_size=BLOCK),
    st.lists(st.integers(0, 16), min_size=BLOCK, max_size=BLOCK),
    st.lists(st.integers(0, 16), min_size=BLOCK, max_size=BLOCK),
    st.integers(1, BLOCK),
    st.integers(0, 16),
    st.integers(0, 40),
)


@given(st.lists(CANVAS, min_size=1, max_size=5))
def test_any_mix_of_canvases_and_rules_equals_a_loop(
    canvases: list[tuple[Rule, list[bool], list[int], list[int], int, int, int]],
) -> None:
    """Sixteenths, so that sums are exact and ties frequent."""
    views = [
        _view(
            [c / 16 for c in confidence],
            entropy=[e / 16 for e in entropy],
            undecided=undecided,
            quota=quota,
            threshold=threshold / 16,
            entropy_bound=bound / 16,
        )
        for _, undecided, confidence, entropy, quota, threshold, bound in canvases
    ]
    rules = [rule for rule, *_ in canvases]
    found = accept(torch.tensor(rules), frozenset(rules), _stacked(views))
    for row, (rule, undecided, confidence, entropy, quota, threshold, bound) in zip(
        found, canvases, strict=True
    ):
        open_positions = [i for i in range(BLOCK) if undecided[i]]
        order = sorted(open_positions, key=lambda i: -confidence[i])
        count = quota
        if rule is Rule.CONFIDENCE_THRESHOLD:
            count = max(quota, sum(confidence[i] > threshold for i in open_positions))
        elif rule is Rule.ENTROPY_BOUND:
            order = sorted(open_positions, key=lambda i: entropy[i])
            sums = [sum(entropy[i] for i in order[: n + 1]) for n in range(len(order))]
            count = max(quota, sum(total < bound for total in sums))
        elif rule is Rule.SEQUENTIAL:
            order = open_positions
        assert _positions(row) == sorted(order[:count])


def test_every_rule_of_a_request_has_an_implementation() -> None:
    assert set(RULES) == set(Rule)
    assert {rule.name for rule in Rule} == {rule.name for rule in CommitRule}


def _taken(rule: Rule, view: CanvasView) -> list[int]:
    return _positions(accept(torch.tensor([rule]), frozenset({rule}), view)[0])


def _positions(row: Tensor) -> list[int]:
    return ints(row.nonzero().squeeze(-1))


def _view(
    confidence: list[float],
    *,
    entropy: list[float] | None = None,
    undecided: list[bool] | None = None,
    quota: int = 1,
    threshold: float = 0.9,
    entropy_bound: float = 0.5,
) -> CanvasView:
    return CanvasView(
        undecided=torch.tensor([undecided or [True] * BLOCK]),
        confidence=torch.tensor([confidence]),
        entropy=torch.tensor([entropy or [1.0] * BLOCK]),
        quota=torch.tensor([quota]),
        threshold=torch.tensor([threshold]),
        entropy_bound=torch.tensor([entropy_bound]),
    )


def _stacked(views: list[CanvasView]) -> CanvasView:
    return CanvasView(
        undecided=torch.cat([view.undecided for view in views]),
        confidence=torch.cat([view.confidence for view in views]),
        entropy=torch.cat([view.entropy for view in views]),
        quota=torch.cat([view.quota for view in views]),
        threshold=torch.cat([view.threshold for view in views]),
        entropy_bound=torch.cat([view.entropy_bound for view in views]),
    )
