"""A cluster in virtual time: discrete events drive the very code that schedules a real one.

Every message takes its time on the way; decisions take none of the virtual time, and how long they
really took is measured with a timer that the caller may give.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from math import inf

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterScheduler
from easel.scheduler.errors import SchedulerError
from easel.scheduler.messages import BlockEvent, ReplicaDigest, ReplicaOrders
from easel.scheduler.prefix_cache import page_chain
from easel.scheduler.request import FinishReason
from easel.scheduler.sim_outcome import Central, Delays, Outcome
from easel.scheduler.sim_work import Load, SimulatedRequest
from easel.scheduler.simulated_replica import ReplicaSettings, SimulatedReplica
from easel.scheduler.trace import BlockTrace, RequestTrace


@dataclass(slots=True)
class _Live:
    """A request between its arrival and its end."""

    work: SimulatedRequest
    blocks: list[BlockTrace] = field(default_factory=list[BlockTrace])
    output: list[int] = field(default_factory=list[int])
    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0
    cached_tokens: int = 0
    attempts: int = 0


def no_timer() -> float:
    return 0.0


class Simulation:
    """Clients, one central scheduler and replicas. Deterministic: equal arguments, equal outcomes."""

    def __init__(
        self,
        load: Load,
        settings: ReplicaSettings,
        *,
        replicas: int = 1,
        central: Central | None = None,
        delays: Delays | None = None,
        timer: Callable[[], float] = no_timer,
    ) -> None:
        self.outcome = Outcome()
        self.replicas = {
            name: SimulatedReplica(name, settings) for name in (f"replica-{n}" for n in range(replicas))
        }
        self._load = load
        self._shape = settings.shape
        self._central: Central = central if central is not None else ClusterScheduler()
        self._delays = delays if delays is not None else Delays()
        self._timer = timer
        self._now = 0.0
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._live: dict[str, _Live] = {}
        self._arriving = 0  # requests that have not reached the scheduler

    @property
    def waiting(self) -> int:
        """Requests without a replica."""
        return self._central.waiting

    def run(self, until: float = inf) -> Outcome:
        """Runs until all requests have ended, or to the given virtual second; may be called again."""
        if not self._events:
            self._begin()
        while (self._arriving or self._live) and self._events[0][0] <= until:
            self._now, _, act = heappop(self._events)
            act()
        self.outcome.seconds = until if self._arriving or self._live else self._now
        self.outcome.unfinished = len(self._live)
        return self.outcome

    def _begin(self) -> None:
        """Replicas report in before the first request, at moments spread over a digest's period."""
        period = self._delays.digest
        for index, replica in enumerate(self.replicas.values()):
            self._central.on_digest(replica.digest(), 0.0)
            self._at(period * (index + 1) / len(self.replicas), lambda replica=replica: self._report(replica))
        self._tick()
        for replica in self.replicas.values():
            replica.obey(self._central.orders(replica.replica_id, 0.0))
        self._expect(self._load.first())

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heappush(self._events, (when, next(self._order), act))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(self._now + seconds, act)

    def _expect(self, work: SimulatedRequest | None) -> None:
        if work is not None:
            self._arriving += 1
            self._at(max(work.arrival, self._now), lambda: self._arrive(work))

    def _arrive(self, work: SimulatedRequest) -> None:
        self._after(self._delays.to_scheduler, lambda: self._place(_Live(replace(work, arrival=arrived))))
        arrived = self._now
        self._expect(self._load.following(work))

    def _place(self, live: _Live, *, again: bool = False) -> None:
        request = live.work.request
        ticket = self._ticket(live, again)
        if not again:
            self._arriving -= 1
        started = self._timer()
        try:
            self._central.admit(ticket, self._now)
        except SchedulerError as refusal:
            self._refuse(live, refusal)
            return
        self._live[request.request_id] = live
        self._dispatch()
        self.outcome.decisions.place.append(self._timer() - started)

    def _refuse(self, live: _Live, refusal: SchedulerError) -> None:
        self.outcome.refused.append((self._now, type(refusal).__name__))
        self._next_of(live.work.client)

    def _ticket(self, live: _Live, again: bool) -> AdmissionTicket:
        request, size = live.work.request, self._shape.page_size
        chain = page_chain(request.prefix, size, request.tenant) if self._shape.layout.shares_prefix else []
        return AdmissionTicket(
            request_id=request.request_id,
            prompt_tokens=len(request.prefix),
            max_tokens=request.sampling.max_tokens - len(request.committed),
            page_hashes=tuple(chain),
            tenant=request.tenant,
            priority=request.priority,
            deadline_seconds=request.deadline_seconds,
            admitted=again,
        )

    def _dispatch(self) -> None:
        for assignment in self._central.dispatch(self._now):
            self.outcome.placements += 1
            replica = self.replicas[assignment.replica_id]
            live = self._live.get(assignment.request_id)
            if live is not None:
                live.attempts += 1
                self._after(self._delays.to_replica, lambda r=replica, w=live: self._submit(r, w))

    def _submit(self, replica: SimulatedReplica, live: _Live) -> None:
        replica.submit(live.work)
        self._wake(replica)

    def _wake(self, replica: SimulatedReplica) -> None:
        if replica.busy:
            return
        seconds = replica.begin(self._now)
        if seconds is not None:
            self._after(seconds, lambda: self._step_over(replica))
        for event in replica.given_back:
            self._deliver(event)
        replica.given_back.clear()

    def _step_over(self, replica: SimulatedReplica) -> None:
        for event in replica.end(self._now):
            self._deliver(event)
        self._wake(replica)

    def _deliver(self, event: BlockEvent) -> None:
        live = self._live.get(event.request_id)
        if live is None:
            return
        if event.finish is FinishReason.HANDED_OVER:
            self._hand_over(live)
            return
        at = self._now + self._delays.to_client
        if not live.blocks:
            self.outcome.firsts.append((at, at - live.work.arrival))
        live.blocks.append(BlockTrace(at, event.steps, len(event.tokens), event.seconds))
        live.output.extend(event.tokens)
        self.outcome.blocks.append((at, len(event.tokens)))
        live.queue_seconds, live.prefill_seconds = event.queue_seconds, event.prefill_seconds
        live.cached_tokens = event.cached_tokens
        if event.finish is not None:
            del self._live[event.request_id]
            self.outcome.requests.append(_trace_of(live))
            # The gateway tells the scheduler, and the client hears, at the same moment.
            self._arriving += 1
            self._at(at, lambda: self._ended(live))

    def _hand_over(self, live: _Live) -> None:
        request = replace(live.work.request, committed=tuple(live.output))
        live.work = replace(live.work, request=request)
        self.outcome.moved += 1
        self._after(self._delays.to_scheduler, lambda: self._place(live, again=True))

    def _ended(self, live: _Live) -> None:
        self._arriving -= 1
        started = self._timer()
        self._central.finished(live.work.request.request_id, len(live.output))
        self._dispatch()
        self.outcome.decisions.end.append(self._timer() - started)
        self._next_of(live.work.client)

    def _next_of(self, client: int) -> None:
        if client >= 0:
            self._expect(self._load.after(client, self._now))

    def _report(self, replica: SimulatedReplica) -> None:
        digest = replica.digest()
        self._after(self._delays.to_replica, lambda: self._hear(replica, digest))
        self._after(self._delays.digest, lambda: self._report(replica))

    def _hear(self, replica: SimulatedReplica, digest: ReplicaDigest) -> None:
        started = self._timer()
        self._central.on_digest(digest, self._now)
        orders = self._central.orders(replica.replica_id, self._now)
        self._dispatch()
        self.outcome.decisions.digest.append(self._timer() - started)
        self._after(self._delays.to_replica, lambda: self._obey(replica, orders))

    def _obey(self, replica: SimulatedReplica, orders: ReplicaOrders) -> None:
        replica.obey(orders)
        if orders.hand_over:
            self._wake(replica)

    def _tick(self) -> None:
        started = self._timer()
        self._central.policies(self._now)
        for request_id, refusal in self._central.shed(self._now):
            self._refuse(self._live.pop(request_id), refusal)
        self._dispatch()
        self.outcome.decisions.tick.append(self._timer() - started)
        self._after(self._delays.tick, self._tick)


def _trace_of(live: _Live) -> RequestTrace:
    work = live.work
    return RequestTrace(
        request_id=work.request.request_id,
        arrival=work.arrival,
        prompt_tokens=len(work.request.prompt),
        max_tokens=work.request.sampling.max_tokens,
        blocks=tuple(live.blocks),
        queue_seconds=live.queue_seconds,
        prefill_seconds=live.prefill_seconds,
        cached_tokens=live.cached_tokens,
        client=work.client,
        tenant=work.request.tenant,
        priority=work.request.priority,
    )
