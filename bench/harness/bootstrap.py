"""Confidence intervals of figures by resampling clusters: whole conversations, or slices of the time.

The percentile bootstrap (Efron 1979) on clusters: requests of one conversation, and gaps of one answer,
depend on each other, so a conversation is drawn with all it holds. Each figure is a weighted one of the
same sorted values, the weight being how often its cluster was drawn, so that nothing is sorted twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Sample:
    """Values, each with the index of the cluster it belongs to."""

    values: Floats  # [values]
    clusters: Counts  # [values]
    count: int  # of clusters, those without a value among them


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and the range that holds 95 % of its resampled ones."""

    value: float
    low: float
    high: float


Statistic = Callable[[Sample, Counts], float]


def sample_of(values: Sequence[tuple[int, float]], count: int) -> Sample:
    """From (cluster, value), sorted by value."""
    ordered = sorted(values, key=lambda pair: pair[1])
    return Sample(
        np.array([value for _, value in ordered], dtype=np.float64),
        np.array([cluster for cluster, _ in ordered], dtype=np.int64),
        count,
    )


def quantile(share: float) -> Statistic:
    """The smallest value that at least `share` of all drawn do not exceed; NaN of none."""

    def statistic(sample: Sample, drawn: Counts) -> float:
        weights = np.cumsum(drawn[sample.clusters])
        if not len(weights) or weights[-1] == 0:
            return float("nan")
        return float(sample.values[np.searchsorted(weights, share * weights[-1])])

    return statistic


def mean(sample: Sample, drawn: Counts) -> float:
    """NaN of none."""
    weights = drawn[sample.clusters]
    total = weights.sum()
    return float(sample.values @ weights / total) if total else float("nan")


def resample(sample: Sample, statistic: Statistic, draws: int, rng: np.random.Generator) -> Floats:
    """[draws + 1]: the figure itself, then those of clusters drawn with replacement."""
    even = np.full(sample.count, 1.0 / max(1, sample.count))
    counts = [np.ones(sample.count, dtype=np.int64)]
    found = [statistic(sample, counts[0])]
    found += [statistic(sample, rng.multinomial(sample.count, even)) for _ in range(draws)]
    return np.array(found)


def ratio(first: Floats, second: Floats) -> Interval | None:
    """second / first; None where either has no value. Both are as `resample` returns them."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = second / first
    if not np.isfinite(ratios[0]):
        return None
    drawn = ratios[1:][np.isfinite(ratios[1:])]
    edge = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (edge, 1.0 - edge)) if len(drawn) else (ratios[0], ratios[0])
    return Interval(float(ratios[0]), float(low), float(high))
