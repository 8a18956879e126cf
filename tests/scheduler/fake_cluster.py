"""Fake replicas under a real central scheduler, on one clock: for tests of promises under load."""

from collections.abc import Callable
from dataclasses import dataclass, field

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterScheduler
from easel.scheduler.errors import Refused
from easel.scheduler.messages import ReplicaDigest
from easel.scheduler.placement import Assignment
from easel.scheduler.shards import ShardedScheduler
from tests.fakes import FakeReplica, request, shape

DIGEST_SECONDS = 0.004


@dataclass(slots=True)
class Outcome:
    """What became of one request; times on the cluster's clock."""

    ticket: AdmissionTicket
    arrived: float
    refused: Refused | None = None
    shed: bool = False
    placed: float | None = None
    finished: float | None = None

    @property
    def in_time(self) -> bool:
        limit = self.ticket.deadline_seconds
        return self.finished is not None and (limit is None or self.finished - self.arrived <= limit)


@dataclass(slots=True)
class FakeCluster:
    """Replicas with 4 slots whose requests of 40 tokens take about 40 milliseconds."""

    central: ClusterScheduler | ShardedScheduler
    replicas: dict[str, FakeReplica]
    now: float = 0.0
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    _sequence: int = 0
    _seen: dict[str, int] = field(default_factory=dict[str, int])  # events read, by request

    @staticmethod
    def of(central: ClusterScheduler | ShardedScheduler, names: str) -> "FakeCluster":
        cluster = FakeCluster(
            central, {name: FakeReplica(shape(slots=4, pages=400), max_steps=4) for name in names}
        )
        cluster.report()
        return cluster

    def send(self, ticket: AdmissionTicket) -> Outcome:
        outcome = self.outcomes[ticket.request_id] = Outcome(ticket, self.now)
        try:
            self.central.admit(ticket, self.now)
        except Refused as refused:
            outcome.refused = refused
        return outcome

    def run(self, seconds: float, arrive: Callable[[float], None] | None = None) -> None:
        """Lets time pass; `arrive` is called once per digest interval, to send what comes."""
        until = self.now + seconds
        while self.now < until:
            self.now += DIGEST_SECONDS
            if arrive is not None:
                arrive(self.now)
            for name, replica in self.replicas.items():
                self._step(name, replica)
            self.report()
            for request_id, _ in self.central.shed(self.now):
                self.outcomes[request_id].shed = True
            for assignment in self.central.dispatch(self.now):
                self._start(assignment)

    def report(self) -> None:
        self._sequence += 1
        for name, replica in self.replicas.items():
            self.central.on_digest(self._digest(name, replica), self.now)
        told = self.central.policies(self.now)
        for name, replica in self.replicas.items():
            if name in told:
                replica.scheduler.set_policy(told[name], self.now)

    def _digest(self, name: str, replica: FakeReplica) -> ReplicaDigest:
        return replica.scheduler.digest(name, self._sequence)

    def _start(self, assignment: Assignment) -> None:
        outcome = self.outcomes[assignment.request_id]
        outcome.placed = self.now
        ticket = outcome.ticket
        self.replicas[assignment.replica_id].submit(
            request(ticket.request_id, ticket.prompt_tokens, ticket.max_tokens, priority=ticket.priority)
        )

    def _step(self, name: str, replica: FakeReplica) -> None:
        while replica.scheduler.has_work and replica.now < self.now:
            replica.step()
        replica.now = max(replica.now, self.now)
        for request_id in self.central.outstanding(name):
            events = replica.events.get(request_id, [])
            if events and events[-1].finish is not None:
                self.outcomes[request_id].finished = self.now
                self.central.finished(request_id, len(replica.output(request_id)))
