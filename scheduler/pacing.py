"""What each replica is told: how dear a step may be, how much of it refresh, how many openings.

In the steady state a replica with S slots whose blocks take k steps finishes S/k blocks a step.
Newcomers are opened at the same rate, so that a burst of arrivals does not become a burst of
commits one block later.
"""

from collections.abc import Sequence
from math import ceil

from easel.scheduler.limits import ClusterLimits
from easel.scheduler.messages import PhasePolicy, ReplicaDigest, Tightening
from easel.scheduler.placement import DEFAULT_STEPS_PER_BLOCK, ReplicaView
from easel.scheduler.valve import LoadValve

NEWCOMER_SHARE = 0.5  # of a full step's cost, added for prefill where the target leaves less
MOST_REFRESH_TOKENS = 8192


def pace(
    digest: ReplicaDigest,
    *,
    target_seconds: float,
    time_to_live: float,
    epoch: int,
    tightening: Tightening | None = None,
    preempt: bool = True,
) -> PhasePolicy:
    """The policy for one replica; `target_seconds` is what a step should take at most.

    A replica whose canvases alone take longer than the target still gets room for newcomers:
    slots that stay empty would cost more than a longer step. One that has more prefill waiting
    than canvases running may spend on prefill what the missing canvases leave of a full step.
    """
    cost, block = digest.cost, digest.block_length
    steps = digest.steps_per_block or DEFAULT_STEPS_PER_BLOCK
    finishing = ceil(digest.slots / max(1.0, steps))
    canvas_seconds = block * (cost.per_token + cost.per_head_row)
    full = cost.constant + digest.slots * canvas_seconds + finishing * block * cost.per_token
    target = max(target_seconds, (1.0 + NEWCOMER_SHARE) * full)
    missing = digest.slots - min(digest.slots, digest.slots_used) if digest.waiting_prefill_tokens else 0
    spare = target - full + missing * canvas_seconds
    affordable = spare / cost.per_token if cost.per_token > 0.0 else MOST_REFRESH_TOKENS
    prefill = int(min(affordable, MOST_REFRESH_TOKENS))
    renewing = 2 * finishing * block  # commits and openings of canvases that go on
    return PhasePolicy(
        epoch=epoch,
        time_to_live=time_to_live,
        target_seconds=target,
        refresh_tokens=min(MOST_REFRESH_TOKENS, max(block, prefill) + renewing),
        opens_per_step=finishing,
        tightening=tightening,
        preempt=preempt,
    )


class Pacer:
    """Keeps the epoch, and a valve for each replica: only those in whose requests are late tighten."""

    def __init__(self, limits: ClusterLimits) -> None:
        self._limits = limits
        self._valves: dict[str, LoadValve] = {}
        self._epoch = 0

    def policies(
        self, views: Sequence[ReplicaView], room_slack: float | None, now: float
    ) -> dict[str, PhasePolicy]:
        """A policy for each replica, under an epoch above all that any of them was told before.

        `room_slack` is the least predicted slack in seconds of those who wait for a replica.
        """
        told = max((view.digest.policy_epoch for view in views), default=0)
        self._epoch = max(self._epoch, told) + 1
        return {view.replica_id: self._tell(view, room_slack, now) for view in views}

    def forget(self, replica_id: str) -> None:
        self._valves.pop(replica_id, None)

    def _tell(self, view: ReplicaView, room_slack: float | None, now: float) -> PhasePolicy:
        slacks = [slack for slack in (room_slack, view.digest.least_slack) if slack is not None]
        view.policy = pace(
            view.digest,
            target_seconds=self._limits.target_seconds,
            time_to_live=self._limits.policy_seconds,
            epoch=self._epoch,
            tightening=self._tightening(view.replica_id, min(slacks, default=None), now),
            preempt=self._limits.preempt,
        )
        return view.policy

    def _tightening(self, replica_id: str, slack: float | None, now: float) -> Tightening | None:
        if not self._limits.valve.enabled:
            return None
        valve = self._valves.setdefault(replica_id, LoadValve(self._limits.valve))
        return valve.update(slack, now)
