"""Counts and running means of one replica, for its digests and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from easel.scheduler.cost import Workload
from easel.scheduler.histogram import StepTimes
from easel.scheduler.messages import CanvasResult
from easel.scheduler.steps import StepHistogram

STEP_MEMORY = 0.98  # about the last 50 steps
BLOCK_MEMORY = 0.95  # about the last 20 blocks
REQUEST_MEMORY = 0.95  # about the last 20 requests


@dataclass(slots=True)
class RunningMean:
    """Exponentially weighted mean that starts at its first value."""

    memory: float
    value: float = 0.0
    empty: bool = True

    def add(self, value: float) -> None:
        memory = 0.0 if self.empty else self.memory
        self.value = memory * self.value + (1.0 - memory) * value
        self.empty = False


@dataclass(slots=True)
class Totals:
    """What a replica has done since it started."""

    steps: int
    refresh_tokens: int
    reuse_tokens: int
    blocks: int
    committed_tokens: int  # output tokens of finished blocks
    step_seconds: RunningMean
    steps_per_block: RunningMean
    output_share: RunningMean  # output tokens / max_tokens of requests that ended
    histogram: StepHistogram
    preemptions: int = 0
    step_times: StepTimes = field(default_factory=StepTimes)
    predicted_times: StepTimes = field(default_factory=StepTimes)

    @staticmethod
    def zero() -> "Totals":
        return Totals(
            steps=0,
            refresh_tokens=0,
            reuse_tokens=0,
            blocks=0,
            committed_tokens=0,
            step_seconds=RunningMean(STEP_MEMORY),
            steps_per_block=RunningMean(BLOCK_MEMORY),
            output_share=RunningMean(REQUEST_MEMORY, value=1.0),
            histogram=StepHistogram(),
        )

    def add_steps(self, count: int, load: Workload, seconds: float, predicted_seconds: float) -> None:
        """Forwards over the same rows, which took `seconds` together; each was predicted to take so long."""
        self.steps += count
        self.refresh_tokens += count * (load.tokens - load.reuse_tokens)
        self.reuse_tokens += count * load.reuse_tokens
        self.step_seconds.add(seconds / count)
        self.step_times.add(seconds / count, count)
        self.predicted_times.add(predicted_seconds, count)

    def add_block(self, path: Sequence[CanvasResult], tokens: int) -> None:
        """A finished block: the results of its steps, and its output tokens."""
        self.blocks += 1
        self.committed_tokens += tokens
        self.steps_per_block.add(float(path[-1].step))
        self.histogram.add(path)
