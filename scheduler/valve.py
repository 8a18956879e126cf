"""The load valve: while deadlines are in danger, canvases may settle sooner than asked for.

A lower confidence threshold decides more positions in a step, so blocks take fewer steps;
DiLaServe (arXiv 2606.29094) uses it so under load. Off unless the operator turns it on, and never
beyond the bounds the operator sets.
"""

from dataclasses import dataclass

from easel.scheduler.messages import Tightening

LEVELS = 3  # from closed to as tight as the bounds allow
CLOSED_THRESHOLD = 0.9  # where tightening begins: what requests ask for by default
CLOSED_ENTROPY_BOUND = 0.35  # nats
TIGHTEN_SECONDS = 1.0  # between two steps tighter, so that each shows its effect first
LOOSEN_SECONDS = 5.0  # of positive slack before a step back


@dataclass(frozen=True, slots=True)
class ValveBounds:
    """How far the operator allows canvases to settle sooner."""

    enabled: bool = False
    least_steps: int = 8
    least_threshold: float = 0.7
    most_entropy_bound: float = 1.0  # nats

    def at(self, level: int) -> Tightening | None:
        """Level 0 leaves requests as they ask; LEVELS is as tight as it gets."""
        if level <= 0:
            return None
        share = level / LEVELS
        threshold = CLOSED_THRESHOLD + share * (self.least_threshold - CLOSED_THRESHOLD)
        bound = CLOSED_ENTROPY_BOUND + share * (self.most_entropy_bound - CLOSED_ENTROPY_BOUND)
        return Tightening(
            most_steps=self.least_steps << (LEVELS - level),
            threshold=max(threshold, self.least_threshold),
            entropy_bound=min(bound, self.most_entropy_bound),
        )


@dataclass(slots=True)
class LoadValve:
    """Moves by one level at a time: quickly tighter, slowly back, so that it does not swing."""

    bounds: ValveBounds
    level: int = 0
    _moved_at: float | None = None
    _calm_since: float | None = None

    def update(self, slack: float | None, now: float) -> Tightening | None:
        """What to tell replicas now; `slack` is the least predicted one in seconds, None: no deadline."""
        if not self.bounds.enabled:
            return None
        if slack is not None and slack < 0.0:
            self._calm_since = None
            if self.level < LEVELS and self._rested(TIGHTEN_SECONDS, now):
                self._move(1, now)
        elif self._calm_since is None:
            self._calm_since = now
        elif (
            self.level > 0 and now - self._calm_since >= LOOSEN_SECONDS and self._rested(LOOSEN_SECONDS, now)
        ):
            self._move(-1, now)
        return self.bounds.at(self.level)

    def _rested(self, seconds: float, now: float) -> bool:
        return self._moved_at is None or now - self._moved_at >= seconds

    def _move(self, levels: int, now: float) -> None:
        self.level += levels
        self._moved_at = now
