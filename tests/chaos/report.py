"""What a run came to, as text and as JSON."""

import time
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.faults import FaultKind
from tests.chaos.tally import Tally

# A client that is away while Redis loses what it knows, or while its answer cannot be written, finds nothing.
_FORGETFUL = {FaultKind.REDIS_WIPE, FaultKind.REDIS_RESTART, FaultKind.REDIS_AWAY}
_COMING_BACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault; times are seconds of the monotonic clock."""

    kind: FaultKind
    begin: float
    over: float  # when its cause was gone
    whole: float  # when the cluster was whole again
    detail: str


@dataclass(slots=True)
class Report:
    """Filled in as the run goes on."""

    seed: int
    tally: Tally
    memory_before: dict[str, int]  # resident bytes by kind of process
    memory_after: dict[str, int] = field(default_factory=dict[str, int])
    health: dict[str, Any] = field(default_factory=dict[str, Any])
    begin: float = 0.0
    calm_until: float = 0.0
    end: float = 0.0
    said: int = 0  # of the tally's details
    injected: list[Injected] = field(default_factory=list[Injected])
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))

    @property
    def passed(self) -> bool:
        """Whether clients got exactly what they would have got without faults."""
        return self.tally.is_clean and bool(self.tally.blocks) and not self.unexplained

    @property
    def unexplained(self) -> int:
        """Answers that were forgotten, though no Redis that keeps them was lost or out of reach."""
        spans = [
            (one.begin, one.whole + _COMING_BACK_SECONDS) for one in self.injected if one.kind in _FORGETFUL
        ]
        return sum(not any(begin < at < end for begin, end in spans) for at in self.tally.asked_anew)

    def as_json(self) -> dict[str, Any]:
        """Everything that is printed, and the faults one by one."""
        tally = self.tally
        seconds = max(self.end - self.begin, 1e-9)
        return {
            "date": self.date,
            "seed": self.seed,
            "seconds": round(seconds, 1),
            "faults": len(self.injected),
            "requests": tally.requests.total(),
            "requests_by_manner": dict(tally.requests),
            "blocks": tally.blocks,
            "tokens": tally.tokens,
            "tokens_per_second": round(tally.tokens / seconds, 1),
            "resumed": tally.resumed,
            "refused_and_repeated": tally.refused,
            "tokens_lost": tally.difference.lost,
            "tokens_doubled": tally.difference.doubled,
            "tokens_changed": tally.difference.changed,
            "failed_requests": tally.failed,
            "asked_anew": len(tally.asked_anew),
            "asked_anew_without_reason": self.unexplained,
            "silent_connections": tally.silences,
            "details": tally.details,
            "calm_longest_stall": round(tally.longest_stall(self.begin, self.calm_until), 2),
            "longest_stalls": [
                {
                    "at": round(stall.begin - self.begin, 1),
                    "seconds": round(stall.seconds, 1),
                    "about": stall.about,
                }
                for stall in tally.longest(10)
            ],
            "by_kind": self._by_kind(),
            "memory_mb_before": {name: size >> 20 for name, size in self.memory_before.items()},
            "memory_mb_after": {name: size >> 20 for name, size in self.memory_after.items()},
            "injected": [
                {"kind": one.kind, "at": round(one.begin - self.begin, 1), "detail": one.detail}
                for one in self.injected
            ],
        }

    def lines(self) -> list[str]:
        """For people."""
        found = self.as_json()
        lines = [
            f"{found['date']}, seed {self.seed}: {found['faults']} faults in {found['seconds']:.0f} s",
            (
                f"load      {found['requests']} requests, {found['blocks']} blocks, {found['tokens']} tokens "
                f"({found['tokens_per_second']}/s), {found['resumed']} resumptions, "
                f"{found['refused_and_repeated']} refused for a moment"
            ),
            "kind              faults   recovery mean / most   longest stall of a client",
        ]
        lines += [
            f"{kind:16} {one['faults']:7d} {one['recovery_mean']:10.1f} s {one['recovery_most']:6.1f} s "
            f"{one['longest_stall']:14.1f} s"
            for kind, one in found["by_kind"].items()
        ]
        lines += [f"without faults: longest stall {found['calm_longest_stall']} s"]
        lines += [
            f"stall {one['seconds']} s from {one['at']} s: {one['about']}"
            for one in found["longest_stalls"][:3]
        ]
        lines += [f"memory, MB: {found['memory_mb_before']} before, {found['memory_mb_after']} after"]
        lines += [f"silent: {silence}" for silence in self.tally.silences[:5]]
        lines += [f"noted: {detail}" for detail in self.tally.details]
        lines += [
            (
                f"tokens lost {found['tokens_lost']}, doubled {found['tokens_doubled']}, changed "
                f"{found['tokens_changed']}; requests failed {found['failed_requests']}, asked anew "
                f"{found['asked_anew']} ({self.unexplained} without reason)"
            ),
            "PASSED" if self.passed else "FAILED",
        ]
        return lines

    def _by_kind(self) -> dict[str, dict[str, Any]]:
        kinds: dict[str, dict[str, Any]] = {}
        for kind in FaultKind:
            ours = [one for one in self.injected if one.kind is kind]
            if ours:
                healing = [one.whole - one.over for one in ours]
                kinds[kind.value] = {
                    "faults": len(ours),
                    "recovery_mean": round(sum(healing) / len(healing), 1),
                    "recovery_most": round(max(healing), 1),
                    "longest_stall": round(
                        max(self.tally.longest_stall(one.begin, one.whole) for one in ours), 1
                    ),
                }
        return kinds
