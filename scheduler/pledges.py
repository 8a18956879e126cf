"""What requests on a replica were promised, and whether one more canvas there would break it."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pledge:
    """An answer that was promised for a deadline. Times are those of the scheduler's clock."""

    deadline: float
    ends_at: float  # predicted cautiously, with the canvases that there are


@dataclass(slots=True)
class Pledges:
    """Those of one replica. A step takes longer with every canvas in it, so all slow down together."""

    of: dict[str, Pledge] = field(default_factory=dict[str, Pledge])

    def add(self, request_id: str, deadline: float, ends_at: float) -> None:
        self.of[request_id] = Pledge(deadline, ends_at)

    def discard(self, request_id: str) -> None:
        self.of.pop(request_id, None)

    def stretch(self, factor: float, now: float) -> None:
        """Steps take `factor` times as long from now on."""
        for pledge in self.of.values():
            pledge.ends_at = _stretched(pledge, factor, now)

    def endure(self, factor: float, now: float) -> bool:
        """Whether all would still be in time if steps took `factor` times as long from now on.

        Who is late already is not made a reason to leave slots empty.
        """
        return all(
            pledge.ends_at > pledge.deadline or _stretched(pledge, factor, now) <= pledge.deadline
            for pledge in self.of.values()
        )


def _stretched(pledge: Pledge, factor: float, now: float) -> float:
    return now + max(0.0, pledge.ends_at - now) * factor
