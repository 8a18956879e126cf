"""The logic of the cluster's central scheduler: admission, placement, pacing. No clock, no network."""

from collections import OrderedDict
from random import Random
from typing import TypeVar

from easel.scheduler.admission import AdmissionTicket, Waiting, WaitingRoom
from easel.scheduler.errors import DeadlineImpossible, QueueFull, SchedulerError
from easel.scheduler.fleet import Fleet
from easel.scheduler.limits import ClusterLimits
from easel.scheduler.messages import PhasePolicy, ReplicaDigest, ReplicaOrders
from easel.scheduler.outlook import Outlook
from easel.scheduler.pacing import Pacer
from easel.scheduler.placement import Assignment, Choice, Outstanding, ReplicaView, class_of
from easel.scheduler.promises import Promises, within_bounds
from easel.scheduler.rebalance import Rebalancer
from easel.scheduler.tenants import TenantLedger
from easel.scheduler.totals import RunningMean

T = TypeVar("T")

REMEMBERED = 4096  # ids of requests that ended, and of those that left a replica
LOOKAHEAD = 16  # tickets that fit nowhere and are passed over in one dispatch


class ClusterScheduler:
    """Admits requests, assigns them to replicas, and paces the replicas' refresh work.

    Times are any monotonic clock's, always the same one. A request id is unique among the
    requests known here; admitting a known one again forgets the earlier attempt. `draw` decides
    which replicas are compared when there are many; the same draws make the same decisions.
    """

    def __init__(self, limits: ClusterLimits | None = None, draw: Random | None = None) -> None:
        self.limits = limits if limits is not None else ClusterLimits()
        self.outlook = Outlook()
        self._ledger = TenantLedger(self.limits.tenants, self.limits.default_tenant)
        self._room = WaitingRoom(self._ledger)
        self._fleet = Fleet(
            self.limits.queue_ahead,
            self.limits.digest_timeout_seconds,
            self.limits.prefix_index_pages,
            draw if draw is not None else Random(0),
        )
        self._promises = Promises(self._room, self._fleet, self.outlook)
        self._rebalancer = Rebalancer()
        self._pacer = Pacer(self.limits)
        self._where: dict[str, str] = {}  # request id -> replica id
        self._ended: OrderedDict[str, None] = OrderedDict()  # so that a late digest revives nobody
        self._left: OrderedDict[str, tuple[Outstanding, float]] = OrderedDict()  # gone from a digest, when
        self._shed: list[Waiting] = []  # taken out of the room, not reported yet
        self._late = 0  # requests shed
        self._missed = 0  # deadlines given up for lack of time, when policies were made last
        self._mean_tokens = RunningMean(memory=0.95)  # of admitted requests, at most
        self._latest = 0.0  # the last time anybody named

    @property
    def waiting(self) -> int:
        return len(self._room)

    @property
    def replicas(self) -> tuple[str, ...]:
        return tuple(self._fleet.views)

    def replica_of(self, request_id: str) -> str | None:
        """Where the request was sent, or found."""
        return self._where.get(request_id)

    def outstanding(self, replica_id: str) -> tuple[str, ...]:
        """Requests believed to wait or run on the replica."""
        view = self._fleet.views.get(replica_id)
        return tuple(view.outstanding) if view is not None else ()

    def admit(self, ticket: AdmissionTicket, now: float) -> None:
        """Lets a request wait for a replica.

        Raises QueueFull, TenantLimit or DeadlineImpossible, each with the time after which to
        retry; never for a ticket that was admitted before.
        """
        self._latest = now
        self._forget(ticket.request_id)
        self._ended.pop(ticket.request_id, None)
        self._left.pop(ticket.request_id, None)
        if not ticket.admitted:
            self._ledger.settle(ticket.request_id, None)
            self._refuse_excess(ticket, now)
        start = self._promises.latest_start(ticket, now)
        if ticket.admitted:
            self._ledger.enter_again(ticket.request_id, ticket.tenant)
        else:
            self._mean_tokens.add(ticket.max_tokens)
            self._ledger.enter(ticket.request_id, ticket.tenant, ticket.prompt_tokens, ticket.max_tokens, now)
        self._room.push(ticket, now, start)

    def shed(self, now: float) -> list[tuple[str, SchedulerError]]:
        """Waiting requests that cannot make their deadline any more, taken out, and what to tell them."""
        self._drop_late(now)
        late, self._shed = self._shed, []
        return [(one.ticket.request_id, self._too_late(one, now)) for one in late]

    def predicted_wait(self, now: float) -> float:
        """Seconds until those who wait now have all been started, within bounds."""
        return self._promises.drain_seconds(now)

    def dispatch(self, now: float) -> list[Assignment]:
        """Assigns waiting requests to replicas while any replica may take more."""
        self._latest = now
        self._drop_late(now)
        assignments: list[Assignment] = []
        passing: set[str] = set()
        while len(passing) < LOOKAHEAD and (latest := self._fleet.latest_open()) is not None:
            waiting = self._room.head(passing, now, latest)
            if waiting is None:
                break
            choice = self._choose(waiting, now)
            if choice is None:
                passing.add(waiting.ticket.request_id)
                continue
            self._room.serve(waiting.ticket)
            assignments.append(self._assign(waiting, choice, now))
        return assignments

    def abandon(self, request_id: str) -> None:
        """The client left, whether the request waits or runs; unknown ids are ignored."""
        self.finished(request_id)

    def finished(self, request_id: str, output_tokens: int | None = None) -> None:
        """The request ended, with so many output tokens since it was admitted; unknown ids are ignored."""
        replica_id = self._where.get(request_id)
        if replica_id is not None:
            request, ended_at = self._fleet.views[replica_id].outstanding[request_id], self._latest
            self.outlook.learn(request, output_tokens, ended_at)
        elif request_id in self._left:
            self.outlook.learn(self._left[request_id][0], output_tokens, self._left[request_id][1])
        self._forget(request_id)
        self._left.pop(request_id, None)
        self._ledger.settle(request_id, output_tokens)
        _remember(self._ended, request_id, None)

    def on_digest(self, digest: ReplicaDigest, now: float) -> None:
        """Takes a replica's report; the first one makes the replica known.

        Requests in it that are not known here are adopted: a scheduler that was restarted learns
        in this way what runs. Requests that a digest listed and the next does not have ended, or
        come back through `admit`.
        """
        self._latest = now
        heard = self._fleet.hear(digest, now)
        if heard is not None:
            self._reconcile(*heard, now)

    def drain(self, replica_id: str) -> None:
        """Nothing is placed there any more, and its orders are to give all it has back. Until removed."""
        if (view := self._fleet.views.get(replica_id)) is not None:
            view.draining = True
            self._fleet.changed(view)

    def slots(self, replica_id: str) -> int:
        """Canvases the replica has room for; 0 if it is not known."""
        return self._fleet.slots_of(replica_id)

    def reserve_replica(self, replica_id: str, *, reserved: bool) -> None:
        """Nothing is placed there while it is reserved; what it has stays."""
        if (view := self._fleet.views.get(replica_id)) is not None:
            view.reserved = reserved
            self._fleet.changed(view)

    def remove_replica(self, replica_id: str) -> list[str]:
        """Forgets a replica; returns the requests that were there and now have none."""
        view = self._fleet.remove(replica_id)
        if view is None:
            return []
        self._pacer.forget(replica_id)
        self._rebalancer.forget(replica_id)
        lost = list(view.outstanding)
        for request_id in lost:
            del self._where[request_id]
            self._ledger.leave(request_id)
        return lost

    def release_replica(self, replica_id: str) -> ReplicaView | None:
        """Gives an idle replica away, to be adopted by another scheduler; None if it is not idle."""
        view = self._fleet.views.get(replica_id)
        if view is None or view.outstanding or view.digest.active:
            return None
        self.remove_replica(replica_id)
        view.reserved = False
        return view

    def adopt_replica(self, view: ReplicaView) -> None:
        """Takes over an idle replica that another scheduler released."""
        self._fleet.insert(view)

    def expire(self, now: float) -> list[str]:
        """Replicas whose digests have stopped; each is reported until it is removed or heard again."""
        return [view.replica_id for view in self._fleet.views.values() if self._fleet.silent(view, now)]

    def policies(self, now: float) -> dict[str, PhasePolicy]:
        """A new policy for every replica that is heard, under an epoch above all before."""
        self._latest = now
        missed, self._missed = self._missed, self._promises.crowded_out + self._late
        slack = self._room.least_slack(now) if self._missed == missed else -1.0
        heard = list(self._fleet.heard(now))
        if self.limits.rebalance and not len(self._room):
            self._rebalancer.look(heard, now)
        return self._pacer.policies(heard, slack, now)

    def orders(self, replica_id: str, now: float) -> ReplicaOrders:
        """The answer to a digest: the replica's latest policy, and what it is to give back.

        An order is repeated until the replica's digests no longer list the request, so a replica
        has to take the second one for what it is.
        """
        view = self._fleet.views.get(replica_id)
        if view is None:
            return ReplicaOrders()
        policy = view.policy if view.policy.epoch else None
        give_back = view.digest.active if view.draining else self._rebalancer.of(replica_id)
        return ReplicaOrders(policy, give_back, drain=view.draining)

    def _refuse_excess(self, ticket: AdmissionTicket, now: float) -> None:
        if len(self._room) >= self.limits.max_waiting:
            raise QueueFull(len(self._room), self.limits.max_waiting, self.predicted_wait(now))
        service = self._promises.mean_service_seconds(ticket.prompt_tokens, self._mean_tokens.value, now)
        self._ledger.check(ticket.tenant, ticket.tokens, now, within_bounds(service))

    def _too_late(self, waiting: Waiting, now: float) -> DeadlineImpossible:
        deadline = waiting.deadline if waiting.deadline is not None else now
        service = deadline - waiting.latest_start
        return DeadlineImpossible(service, max(0.0, deadline - now), self.predicted_wait(now))

    def _drop_late(self, now: float) -> None:
        for waiting in self._room.late(now):
            self._late += 1
            self._ledger.settle(waiting.ticket.request_id, None)
            self._shed.append(waiting)

    def _choose(self, waiting: Waiting, now: float) -> Choice | None:
        left = None if waiting.deadline is None else waiting.deadline - now
        return self._fleet.best(waiting.ticket, self._share(now), now, left)

    def _share(self, now: float) -> float:
        return self.outlook.likely_share(self._fleet.capacity(now))

    def _assign(self, waiting: Waiting, choice: Choice, now: float) -> Assignment:
        ticket, view = waiting.ticket, choice.view
        share = self._share(now)
        request = Outstanding(
            assigned_at=now,
            prefill_tokens=max(0, ticket.prompt_tokens - choice.cached_pages * view.digest.page_size),
            pages=view.pages_for(ticket) - choice.cached_pages,
            prompt_tokens=ticket.prompt_tokens,
            max_tokens=ticket.max_tokens,
            resumed=ticket.admitted,
            output_tokens=max(1.0, ticket.max_tokens * share),
            wait_seconds=choice.wait_seconds,
            finish_seconds=choice.finish_seconds,
            priority=class_of(ticket),
            deadline=waiting.deadline,
            cautious_seconds=self.outlook.cautious_seconds(choice, share, now),
        )
        self._fleet.add(view, ticket.request_id, request)
        self._where[ticket.request_id] = view.replica_id
        self._ledger.start(ticket.request_id)
        self._fleet.index.add(ticket.page_hashes, view.replica_id)
        return Assignment(ticket.request_id, view.replica_id)

    def _forget(self, request_id: str) -> Outstanding | None:
        """Takes the request out of the room, or off its replica; its charge stays known."""
        self._room.discard(request_id)
        self._ledger.leave(request_id)
        replica_id = self._where.pop(request_id, None)
        if replica_id is None:
            return None
        self._rebalancer.left(replica_id, request_id)
        return self._fleet.take_away(replica_id, request_id, self._latest)

    def _reconcile(self, view: ReplicaView, listed: tuple[str, ...], now: float) -> None:
        new, gone = self._fleet.news(view, listed, self.limits.release_grace_seconds, now)
        for request_id in new:
            if not self._known(request_id):
                self._fleet.add(view, request_id, Outstanding(assigned_at=now, seen=True))
                self._where[request_id] = view.replica_id
        for request_id in gone:
            self._release(request_id, now)

    def _release(self, request_id: str, now: float) -> None:
        request = self._forget(request_id)
        if request is not None:
            _remember(self._left, request_id, (request, now))

    def _known(self, request_id: str) -> bool:
        return request_id in self._where or request_id in self._room or request_id in self._ended


def _remember(memory: "OrderedDict[str, T]", request_id: str, value: T) -> None:
    memory[request_id] = value
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
