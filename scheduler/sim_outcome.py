"""What a simulation is given and what it comes to: the central scheduler's surface, delays, outcomes."""

from dataclasses import dataclass, field
from typing import Protocol

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.errors import SchedulerError
from easel.scheduler.messages import PhasePolicy, ReplicaDigest, ReplicaOrders
from easel.scheduler.placement import Assignment
from easel.scheduler.trace import RequestTrace


class Central(Protocol):
    """What the simulator drives: a ClusterScheduler, or several behind one front."""

    @property
    def waiting(self) -> int: ...

    def admit(self, ticket: AdmissionTicket, now: float) -> None: ...

    def dispatch(self, now: float) -> list[Assignment]: ...

    def finished(self, request_id: str, output_tokens: int | None = None) -> None: ...

    def on_digest(self, digest: ReplicaDigest, now: float) -> None: ...

    def orders(self, replica_id: str, now: float) -> ReplicaOrders: ...

    def policies(self, now: float) -> dict[str, PhasePolicy]: ...

    def shed(self, now: float) -> list[tuple[str, SchedulerError]]: ...


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds that messages take, and between those that are sent regularly."""

    to_scheduler: float = 1e-3  # client -> gateway -> central scheduler
    to_replica: float = 1e-3  # a placement -> gateway -> replica; a policy likewise
    to_client: float = 1e-3  # a block
    digest: float = 1 / 15  # between two digests of a replica
    tick: float = 0.25  # between two rounds of policies


@dataclass(slots=True)
class DecisionTimes:
    """Seconds of real time that each call of the central scheduler took, by what it was for."""

    place: list[float] = field(default_factory=list[float])  # admit and dispatch
    digest: list[float] = field(default_factory=list[float])  # a digest, its orders, and dispatch
    tick: list[float] = field(default_factory=list[float])  # a round of policies
    end: list[float] = field(default_factory=list[float])  # finished, and dispatch


@dataclass(slots=True)
class Outcome:
    """What a simulation came to."""

    requests: list[RequestTrace] = field(default_factory=list[RequestTrace])  # in the order they ended
    refused: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])  # when, and why
    decisions: DecisionTimes = field(default_factory=DecisionTimes)
    placements: int = 0
    moved: int = 0  # requests that one replica gave back and another one went on with
    seconds: float = 0.0  # virtual
    unfinished: int = 0  # requests under way when it ended
    blocks: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])  # when, tokens
    firsts: list[tuple[float, float]] = field(
        default_factory=list[tuple[float, float]]
    )  # when, after what wait

    def first_waits(self, since: float, until: float) -> list[float]:
        """Seconds from arrival to first block of those that came in [since, until), whoever is not done."""
        return [wait for at, wait in self.firsts if since <= at < until]

    def tokens_between(self, since: float, until: float) -> int:
        """Output tokens that arrived in [since, until), of unfinished requests too."""
        return sum(tokens for at, tokens in self.blocks if since <= at < until)
