"""How many steps a canvas still needs: a running histogram by the step it has reached and its entropy.

Conditional means of the steps that remained, over finished blocks that were once in the same place,
with exponential forgetting. Where a place is new, wider ones answer: the same step whatever the entropy,
then the mean of all blocks, then a default.
"""

from bisect import bisect
from collections.abc import Sequence

from easel.scheduler.messages import CanvasResult

ENTROPY_BOUNDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # nats; upper bounds of the buckets, half-open
ANY_ENTROPY = len(ENTROPY_BOUNDS) + 1
PLACES = ANY_ENTROPY + 1
MOST_STEPS = 256  # a block that takes more counts as having reached that many: memory is bounded
LEAST_WEIGHT = 8.0  # observations, after forgetting, from which a place speaks for itself
MEMORY = 0.99  # weight of the past per observation of a place: about its last hundred
DEFAULT_STEPS = 8.0  # of a block, until one was finished


class StepHistogram:
    """Expected remaining steps. A look-up is O(1), a finished block costs O(its steps)."""

    def __init__(self, memory: float = MEMORY, default: float = DEFAULT_STEPS) -> None:
        self._memory = memory
        self._default = default
        self._blocks = 0.0  # weighted count of finished blocks, and sum of their steps
        self._steps = 0.0
        # By step and entropy bucket, and once more by step alone: weights, and sums of remaining steps.
        self._weights = [0.0] * (PLACES * (MOST_STEPS + 1))
        self._totals = [0.0] * (PLACES * (MOST_STEPS + 1))

    @property
    def mean(self) -> float:
        """Expected steps of a block that has not begun."""
        return self._steps / self._blocks if self._blocks else self._default

    def remaining(self, step: int, entropy: float) -> float:
        """Expected steps after `step` of them, the last one's mean entropy in nats; at least 1."""
        if step == 0:
            return self.mean
        base = PLACES * min(step, MOST_STEPS)
        for place in (base + bisect(ENTROPY_BOUNDS, entropy), base + ANY_ENTROPY):
            if self._weights[place] >= LEAST_WEIGHT:
                return self._totals[place] / self._weights[place]
        return max(1.0, self.mean - step)

    def add(self, path: Sequence[CanvasResult]) -> None:
        """Learns from a finished block: the results of those of its steps that were seen, in order."""
        steps, memory = path[-1].step, self._memory
        self._blocks = memory * self._blocks + 1.0
        self._steps = memory * self._steps + steps
        weights, totals = self._weights, self._totals
        for seen in path:
            step = seen.step
            if step >= steps:
                break
            base = PLACES * (step if step < MOST_STEPS else MOST_STEPS)
            for place in (base + bisect(ENTROPY_BOUNDS, seen.mean_entropy), base + ANY_ENTROPY):
                weights[place] = memory * weights[place] + 1.0
                totals[place] = memory * totals[place] + steps - step
