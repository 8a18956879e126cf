"""What clients saw, counted."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.questions import Difference

_MOST_DETAILS = 40
_SHORTEST_STALL = 0.5  # seconds; shorter silences are not kept


@dataclass(frozen=True, slots=True)
class Stall:
    """A client waited for its next block from `begin` to `end`, in seconds of the monotonic clock."""

    begin: float
    end: float
    about: str

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(slots=True)
class Tally:
    """Counts of all clients. Belongs to one event loop."""

    requests: Counter[str] = field(default_factory=Counter[str])  # by manner
    failed: int = 0
    blocks: int = 0
    tokens: int = 0
    resumed: int = 0  # connections that went on where an earlier one broke off
    repeated: int = 0  # requests sent again, since nothing of their answer had arrived
    refused: int = 0  # answers 429 or 503, each tried again
    difference: Difference = field(default_factory=Difference)
    details: list[str] = field(default_factory=list[str])  # of what was wrong; the first ones
    asked_anew: list[float] = field(default_factory=list[float])  # when an answer had been forgotten
    silences: list[str] = field(default_factory=list[str])  # connections given up, and who was at their end
    stalls: list[Stall] = field(default_factory=list[Stall])

    def waited(self, begin: float, about: str) -> None:
        """A client that waited from `begin` has just got a block."""
        now = time.monotonic()
        if now - begin > _SHORTEST_STALL:
            self.stalls.append(Stall(begin, now, about))

    def forgot(self, what: str) -> None:
        """The cluster has forgotten an answer; whether it had a reason shows in what was done to it."""
        self.asked_anew.append(time.monotonic())
        self._detail(f"asked anew: {what}")

    def failure(self, what: str) -> None:
        self.failed += 1
        self._detail(what)

    def wrong(self, difference: Difference, what: str) -> None:
        """Add it up, and keep the first ones' details."""
        if difference.total:
            self.difference += difference
            self._detail(f"{difference}: {what}")

    @property
    def is_clean(self) -> bool:
        """Nothing lost, doubled, changed or failed."""
        return self.failed == 0 and self.difference.total == 0

    def longest_stall(self, begin: float, end: float) -> float:
        """Of any client, overlapping that time; seconds."""
        during = (stall.seconds for stall in self.stalls if stall.begin < end and stall.end > begin)
        return max(during, default=0.0)

    def longest(self, count: int) -> list[Stall]:
        """The longest stalls, longest first."""
        return sorted(self.stalls, key=lambda stall: -stall.seconds)[:count]

    def _detail(self, what: str) -> None:
        if len(self.details) < _MOST_DETAILS:
            self.details.append(f"{time.strftime('%H:%M:%S')} {what}")
