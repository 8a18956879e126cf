"""StepHistogram: conditional means of remaining steps, and what stands in where nothing is known."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easel.scheduler.messages import CanvasResult
from easel.scheduler.steps import ENTROPY_BOUNDS, LEAST_WEIGHT, MOST_STEPS, StepHistogram

Path = list[tuple[int, float]]  # of one block: step reached, mean entropy in nats


def _results(path: Path) -> list[CanvasResult]:
    last = path[-1][0]
    return [CanvasResult("a", 0, step == last, step, 0, entropy) for step, entropy in path]


def _bucket(entropy: float) -> int:
    return sum(entropy >= bound for bound in ENTROPY_BOUNDS)


def _blocks(count: int, seed: int = 0) -> list[Path]:
    """Blocks whose entropy falls the faster the sooner they settle."""
    draw = Random(seed)
    totals = [draw.randint(2, 12) for _ in range(count)]
    return [
        [(step, 2.5 * (1 - step / total) * draw.random()) for step in range(1, total + 1)] for total in totals
    ]


def _mean(seen: list[tuple[int, float]]) -> float:
    weight = sum(w for _, w in seen)
    return sum(remaining * w for remaining, w in seen) / weight


@pytest.mark.parametrize("memory", [1.0, 0.97])
def test_expectations_are_the_conditional_means_of_what_was_seen(memory: float) -> None:
    histogram, blocks = StepHistogram(memory), _blocks(400)
    places: dict[tuple[int, int], list[int]] = {}
    steps: dict[int, list[int]] = {}
    for path in blocks:
        histogram.add(_results(path))
        total = path[-1][0]
        for step, entropy in path[:-1]:
            places.setdefault((step, _bucket(entropy)), []).append(total - step)
            steps.setdefault(step, []).append(total - step)
    compared = 0
    for (step, bucket), seen in places.items():
        entropy = ENTROPY_BOUNDS[bucket - 1] if bucket else 0.0
        values = seen if _weight(len(seen), memory) >= LEAST_WEIGHT else steps[step]
        weighted = [(remaining, memory**age) for age, remaining in enumerate(reversed(values))]
        if _weight(len(values), memory) >= LEAST_WEIGHT:
            assert histogram.remaining(step, entropy) == pytest.approx(_mean(weighted))
            compared += 1
    assert compared > 30
    totals = [(path[-1][0], memory**age) for age, path in enumerate(reversed(blocks))]
    assert histogram.mean == histogram.remaining(0, 1.0) == pytest.approx(_mean(totals))


def _weight(count: int, memory: float) -> float:
    return sum(memory**age for age in range(count))


def test_what_is_seen_of_a_block_only_now_and_then_counts_where_it_was_seen() -> None:
    histogram = StepHistogram(memory=1.0)
    for _ in range(20):
        histogram.add(_results([(3, 1.5), (10, 0.3)]))
    assert histogram.remaining(3, 1.5) == 7.0
    assert histogram.remaining(3, 0.01) == 7.0, "by the step alone"
    assert histogram.remaining(4, 1.5) == 6.0, "by the mean of all blocks"


def test_entropy_tells_blocks_apart_that_have_come_as_far() -> None:
    histogram = StepHistogram()
    for _ in range(20):
        histogram.add(_results([(1, 1.9), (2, 1.8), (9, 0.1)]))
        histogram.add(_results([(1, 0.3), (2, 0.1), (3, 0.0)]))
    assert histogram.remaining(2, 1.5) == pytest.approx(7.0)
    assert histogram.remaining(2, 0.15) == pytest.approx(1.0)


def test_before_a_block_was_finished_the_default_stands_in() -> None:
    histogram = StepHistogram(default=6.0)
    assert (histogram.mean, histogram.remaining(2, 0.5)) == (6.0, 4.0)


def test_what_was_long_ago_is_forgotten() -> None:
    histogram = StepHistogram(memory=0.9)
    for total in [20] * 100 + [4] * 100:
        histogram.add(_results([(1, 1.0), (total, 0.0)]))
    assert histogram.remaining(1, 1.0) == pytest.approx(3.0, abs=0.01)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 3 * MOST_STEPS), min_size=1, max_size=30), st.integers(0, 4 * MOST_STEPS))
def test_at_least_one_step_remains_however_long_blocks_are(totals: list[int], step: int) -> None:
    histogram = StepHistogram()
    for total in totals:
        histogram.add(_results([(reached, 1.0) for reached in range(1, total + 1)]))
    assert histogram.remaining(step, 1.0) >= 1.0
