"""How many replicas there should be, from what waits, what runs and what replicas can do. No clock.

A need has to last before it is followed: of the numbers wanted within a delay the least counts for
more replicas and the largest for fewer, as in the stabilisation windows of Kubernetes'
HorizontalPodAutoscaler.
"""

from collections import deque
from dataclasses import dataclass, field
from math import ceil

from easel.scheduler.fleet_load import FleetLoad, ReplicaLoad

HEADROOM = 0.8  # of the target load, that fewer replicas may come to; more would bring them back at once
MOST_GROWTH = 2.0  # times the replicas there are, for the sake of the queue
_GAP_SECONDS = 10.0  # without news; what was wanted before no longer counts
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ScalingBounds:
    """What the operator asks of the number of replicas."""

    min_replicas: int = 1
    max_replicas: int = 4
    target_wait_seconds: float = 2.0  # predicted, for a slot
    target_load: float = 0.7  # of what replicas can do; 1: no slot, or no time, is left
    up_delay_seconds: float = 5.0
    down_delay_seconds: float = 300.0


@dataclass(slots=True)
class LoadMeter:
    """Remembers each replica's counters, so that what it did since can be told."""

    _seen: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])

    def phase_loads(self, load: FleetLoad, now: float) -> tuple[float, float]:
        """Reuse and refresh work, each as the number of replicas it would fill.

        Reuse: canvases to denoise, by those a replica can hold. Refresh: seconds a second that
        prefills, commits and openings have taken since the last call.
        """
        canvases = sum(replica.canvases for replica in load.replicas) / len(load.replicas)
        running = load.moving + sum(replica.requests for replica in load.replicas)
        refresh = sum(self._refresh_share(replica, now) for replica in load.replicas)
        self._seen = {replica.replica_id: (now, replica.refresh_tokens) for replica in load.replicas}
        return running / canvases, refresh

    def _refresh_share(self, replica: ReplicaLoad, now: float) -> float:
        at, tokens = self._seen.get(replica.replica_id, (now, replica.refresh_tokens))
        done = max(0, replica.refresh_tokens - tokens)
        return min(1.0, done * replica.refresh_seconds / (now - at)) if now > at else 0.0


@dataclass(frozen=True, slots=True)
class _Want:
    at: float
    up: int  # replicas without which the targets are missed
    down: int  # replicas that would keep them with headroom


@dataclass(slots=True)
class ReplicaScaler:
    """Decides for one deployment. Times are any monotonic clock's, always the same one."""

    bounds: ScalingBounds
    _meter: LoadMeter = field(default_factory=LoadMeter)
    _wants: deque[_Want] = field(default_factory=deque[_Want])

    def decide(self, load: FleetLoad | None, current: int, now: float) -> int:
        """Replicas there should be, where `current` are meant to be; None: nothing is known, keep them."""
        if load is None or not load.replicas:
            return current
        if self._wants and now - self._wants[-1].at > _GAP_SECONDS:
            self._wants.clear()
        self._wants.append(self._want(load, now))
        longest = max(self.bounds.up_delay_seconds, self.bounds.down_delay_seconds)
        # The first one kept is as old as the longest delay, or older.
        while len(self._wants) > 1 and self._wants[1].at <= now - longest:
            self._wants.popleft()
        more = self._lasting(self.bounds.up_delay_seconds, now)
        fewer = self._lasting(self.bounds.down_delay_seconds, now)
        least = min((want.up for want in more), default=current)
        most = max((want.down for want in fewer), default=current)
        if least > current:
            return least
        return min(current, most)

    def _want(self, load: FleetLoad, now: float) -> _Want:
        reuse, refresh = self._meter.phase_loads(load, now)
        work = max(reuse, refresh)
        queue = 0.0
        if load.wait_seconds > self.bounds.target_wait_seconds:
            growth = min(MOST_GROWTH, load.wait_seconds / self.bounds.target_wait_seconds)
            queue = growth * len(load.replicas)
        target = self.bounds.target_load
        needed = max(_whole(work / target), _whole(queue))
        # A replica without a request helps nobody.
        useful = min(needed, max(1, load.requests))
        roomy = max(needed, _whole(work / (HEADROOM * target)))
        return _Want(now, self._clamp(useful), self._clamp(roomy))

    def _lasting(self, delay: float, now: float) -> list[_Want]:
        """What was wanted all through the delay; nothing, until it has been watched for so long."""
        if not self._wants or self._wants[0].at > now - delay:
            return []
        since = max((want.at for want in self._wants if want.at <= now - delay), default=now)
        return [want for want in self._wants if want.at >= since]

    def _clamp(self, wanted: int) -> int:
        return max(self.bounds.min_replicas, min(self.bounds.max_replicas, wanted))


def _whole(replicas: float) -> int:
    return ceil(replicas - _ROUNDING)
