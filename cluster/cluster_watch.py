"""What the scheduler actor remembers for those who watch the cluster: steps, faults, timelines.

Nothing here decides anything, and all of it is bounded.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from uuid import uuid4

from easel.cluster.cluster_state import (
    ClusterState,
    Fault,
    FaultKind,
    GatewayReport,
    ReplicaState,
    StoredTimeline,
    Told,
)
from easel.cluster.timeline_store import TimelineStore
from easel.scheduler.messages import ReplicaDigest, StepSample

STRIP = 120  # steps of a replica
FAULTS = 50
SAME_SECONDS = 20.0  # two gateways that see the scheduler come back within that time saw the same


@dataclass(slots=True)
class _Watched:
    """One replica."""

    digest: ReplicaDigest
    epoch_since: float  # when the policy that it follows was first heard of from it
    draining: bool = False
    strip: deque[StepSample] = field(default_factory=lambda: deque[StepSample](maxlen=STRIP))


class ClusterWatch:
    """Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock  # seconds, monotonic
        self._wall = wall  # seconds since the Unix epoch
        self._incarnation = uuid4().hex
        self._replicas: dict[str, _Watched] = {}
        self._faults: deque[Fault] = deque(maxlen=FAULTS)
        self._journal_away = False
        self._timelines = TimelineStore()

    def heard(self, digest: ReplicaDigest) -> None:
        """A replica's report."""
        watched = self._replicas.get(digest.replica_id)
        if watched is None:
            watched = self._replicas[digest.replica_id] = _Watched(digest, self._clock())
        elif digest.policy_epoch != watched.digest.policy_epoch:
            watched.epoch_since = self._clock()
        watched.strip.extend(digest.recent)
        watched.digest = replace(digest, active=(), recent=())
        if digest.draining:
            self.draining(digest.replica_id)

    def draining(self, replica_id: str) -> None:
        """The replica takes no more requests. Said once, however often it is called."""
        watched = self._replicas.get(replica_id)
        if watched is not None and not watched.draining:
            watched.draining = True
            self._add(FaultKind.REPLICA_DRAINING, replica_id)

    def gone(self, replica_id: str, *, expected: bool) -> None:
        """The replica is there no more; expected if it had been asked to go."""
        self._replicas.pop(replica_id, None)
        self._add(FaultKind.REPLICA_LEFT if expected else FaultKind.REPLICA_LOST, replica_id)

    def journal(self, *, away: bool) -> None:
        """How the last exchange with the journal went."""
        if away != self._journal_away:
            self._journal_away = away
            self._add(FaultKind.JOURNAL_AWAY if away else FaultKind.JOURNAL_BACK)

    def take(self, report: GatewayReport) -> Told:
        """A gateway's report."""
        self._timelines.take(report, self._clock())
        fresh = [fault for fault in report.faults if not self._is_known(fault)]
        if fresh:
            self._faults = deque(sorted((*self._faults, *fresh), key=lambda fault: fault.time), FAULTS)
        return Told(self._incarnation, tuple(self._faults))

    def timeline(self, answer_id: str) -> StoredTimeline | None:
        """One answer of any tenant; None when it is not known, or forgotten."""
        return self._timelines.timeline(answer_id, self._clock())

    def state(self, replica_ids: Iterable[str], waiting: int, lost: int) -> ClusterState:
        """Everything, of the replicas that count."""
        now = self._clock()
        watched = [self._replicas[name] for name in replica_ids if name in self._replicas]
        return ClusterState(
            journal="degraded" if self._journal_away else "ok",
            waiting=waiting,
            lost_replicas=lost,
            replicas=tuple(
                ReplicaState(one.digest, one.draining, now - one.epoch_since, tuple(one.strip))
                for one in watched
            ),
            faults=tuple(self._faults),
            answers=self._timelines.summaries(now),
        )

    def _is_known(self, fault: Fault) -> bool:
        if fault in self._faults:
            return True
        restarted = fault.kind is FaultKind.SCHEDULER_RESTARTED
        return restarted and any(
            known.kind is fault.kind and abs(known.time - fault.time) < SAME_SECONDS for known in self._faults
        )

    def _add(self, kind: FaultKind, replica_id: str | None = None) -> None:
        self._faults.append(Fault(self._wall(), kind, replica_id))
