"""The last steps of one replica, for those who watch it: bounded, and thinned before they are sent."""

from collections import deque
from dataclasses import dataclass, field

from easel.scheduler.cost import Workload
from easel.scheduler.messages import StepSample

KEPT = 512  # steps between two digests; the oldest are lost beyond them
SENT = 8  # with one digest; fifteen digests a second then make a second of the 120 that are shown


@dataclass(slots=True)
class RecentSteps:
    """One thread adds, another one takes: both ends of a deque are safe to use so."""

    _samples: deque[StepSample] = field(default_factory=lambda: deque[StepSample](maxlen=KEPT))

    def add(self, step: int, load: Workload, predicted_seconds: float, actual_seconds: float) -> None:
        """A plan was run; the times are of one forward, `step` is the number of its last one."""
        reuse = load.reuse_tokens
        self._samples.append(StepSample(step, load.tokens - reuse, reuse, predicted_seconds, actual_seconds))

    def take(self, most: int = SENT) -> tuple[StepSample, ...]:
        """What was added since the last call, oldest first, evenly thinned to at most `most`."""
        taken = [self._samples.popleft() for _ in range(len(self._samples))]
        return tuple(thinned(taken, most))


def thinned(samples: list[StepSample], most: int) -> list[StepSample]:
    """At most `most` samples with the same distance between them, the newest always among them."""
    if len(samples) <= most:
        return samples
    last = len(samples) - 1
    return [samples[last - (most - 1 - index) * last // max(1, most - 1)] for index in range(most)]
