"""What crosses between gateways and the scheduler actor so that somebody can watch the cluster.

Times are seconds since the Unix epoch; those of a timeline's events are seconds since it began.
"""

from dataclasses import dataclass
from enum import StrEnum

from easel.scheduler.messages import ReplicaDigest, StepSample

Json = dict[str, object]


class FaultKind(StrEnum):
    """What can go wrong, or come back, in a cluster."""

    REPLICA_LOST = "replica_lost"
    REPLICA_LEFT = "replica_left"
    REPLICA_DRAINING = "replica_draining"
    SCHEDULER_RESTARTED = "scheduler_restarted"
    JOURNAL_AWAY = "journal_away"
    JOURNAL_BACK = "journal_back"


@dataclass(frozen=True, slots=True)
class Fault:
    """One of them, when it was noticed."""

    time: float
    kind: FaultKind
    replica: str | None = None


class AnswerState(StrEnum):
    """How far an answer is."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class AnswerSummary:
    """One answer as a list shows it. Counts are those of all its choices."""

    answer_id: str
    tenant: str
    began: float
    state: AnswerState = AnswerState.RUNNING
    seconds: float = 0.0  # from its beginning to its end; while it runs, to when this was written
    blocks: int = 0
    tokens: int = 0
    steps: int = 0
    replica: str | None = None  # the last one that a choice of it was placed on
    trace_id: str | None = None  # W3C, 32 hexadecimal digits


@dataclass(frozen=True, slots=True)
class TimelinePart:
    """What one gateway adds to an answer's timeline: its events from number `first` on."""

    summary: AnswerSummary
    first: int
    events: tuple[Json, ...]  # {"at": seconds, "kind": …, …}


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """Sent every moment, also when there is nothing to say: silence means that the gateway is gone."""

    gateway: str  # an id of its process
    parts: tuple[TimelinePart, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to a report. An incarnation that the gateway has not met knows nothing yet."""

    incarnation: str
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica as it was heard last."""

    digest: ReplicaDigest  # without `active` and `recent`
    draining: bool
    policy_age_seconds: float  # since the policy it follows was first heard of from it
    strip: tuple[StepSample, ...]  # oldest first


@dataclass(frozen=True, slots=True)
class ClusterState:
    """All that there is to see, of all tenants."""

    journal: str  # ok or degraded
    waiting: int
    lost_replicas: int
    replicas: tuple[ReplicaState, ...]
    faults: tuple[Fault, ...]  # oldest first
    answers: tuple[AnswerSummary, ...]


@dataclass(frozen=True, slots=True)
class StoredTimeline:
    """One answer, with what all gateways that worked at it have said of it."""

    summary: AnswerSummary
    events: tuple[Json, ...]  # in the order of their time
