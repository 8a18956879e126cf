"""The cluster's numbers for /metrics: what the scheduler actor knows, without steps and timelines."""

from dataclasses import dataclass, replace

from easel.cluster.cluster_state import ClusterState, ReplicaState


@dataclass(frozen=True, slots=True)
class ClusterTallies:
    """Of the whole cluster, the same whoever asks."""

    replicas: tuple[ReplicaState, ...]  # strips left out
    waiting: int  # requests without a replica
    lost_replicas: int  # since the scheduler began
    predicted_wait_seconds: float
    journal_up: bool
    journal_buffered: int = 0  # records that are not in the journal yet
    journal_lag_seconds: float = 0.0  # age of the oldest of them

    def with_journal(self, up: bool, buffered: int, lag_seconds: float) -> "ClusterTallies":
        """With what another process says of its own writes."""
        return replace(
            self,
            journal_up=self.journal_up and up,
            journal_buffered=self.journal_buffered + buffered,
            journal_lag_seconds=max(self.journal_lag_seconds, lag_seconds),
        )


def tallies_of(state: ClusterState, predicted_wait_seconds: float) -> ClusterTallies:
    """The part of the state that is numbers."""
    digests = [one.digest for one in state.replicas]
    return ClusterTallies(
        replicas=tuple(replace(one, strip=()) for one in state.replicas),
        waiting=state.waiting,
        lost_replicas=state.lost_replicas,
        predicted_wait_seconds=predicted_wait_seconds,
        journal_up=state.journal != "degraded",
        journal_buffered=sum(digest.journal_buffered for digest in digests),
        journal_lag_seconds=max((digest.journal_lag_seconds for digest in digests), default=0.0),
    )
