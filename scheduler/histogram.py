"""How long steps take: counts in fixed ranges, cheap enough to keep up at every step."""

from bisect import bisect_left
from dataclasses import dataclass, field

from easel.scheduler.messages import STEP_BOUNDS, HistogramCounts


@dataclass(slots=True)
class StepTimes:
    """Grows for as long as its replica lives, as Prometheus wants histograms to."""

    _counts: list[int] = field(default_factory=lambda: [0] * (len(STEP_BOUNDS) + 1))
    _sum: float = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """So many steps of that length."""
        self._counts[bisect_left(STEP_BOUNDS, seconds)] += times
        self._sum += seconds * times

    def counts(self) -> HistogramCounts:
        return HistogramCounts(tuple(self._counts), self._sum)
