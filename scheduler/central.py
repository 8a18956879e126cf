"""The logic of the cluster's central scheduler: admission, placement, pacing. No clock, no network."""

from collections import OrderedDict
from dataclasses import dataclass

from easel.scheduler.admission import AdmissionTicket, WaitingRoom
from easel.scheduler.errors import QueueFull
from easel.scheduler.messages import PhasePolicy, ReplicaDigest
from easel.scheduler.pacing import pace
from easel.scheduler.placement import Assignment, Outstanding, ReplicaView, choose
from easel.scheduler.prefix_index import PrefixIndex
from easel.scheduler.totals import RunningMean

ENDED_REMEMBERED = 4096  # request ids
LOOKAHEAD = 16  # tickets that fit nowhere and are passed over in one dispatch
SHORTEST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """What the central scheduler allows."""

    max_waiting: int = 512  # requests without a replica
    queue_ahead: int = 4  # requests sent to a replica beyond its slots
    digest_timeout_seconds: float = 3.0  # a replica that is silent for longer is reported
    release_grace_seconds: float = 5.0  # an assignment no digest has ever listed is dropped after this
    policy_seconds: float = 5.0  # time to live of a policy
    target_seconds: float = 0.050  # cost a step should stay near
    prefix_index_pages: int = 100_000


class ClusterScheduler:
    """Admits requests, assigns them to replicas, and paces the replicas' refresh work.

    Times are any monotonic clock's, always the same one. A request id is unique among the
    requests known here; admitting a known one again forgets the earlier attempt.
    """

    def __init__(self, limits: ClusterLimits | None = None) -> None:
        self.limits = limits if limits is not None else ClusterLimits()
        self._room = WaitingRoom()
        self._views: dict[str, ReplicaView] = {}
        self._where: dict[str, str] = {}  # request id -> replica id
        self._ended: OrderedDict[str, None] = OrderedDict()  # so that a late digest revives nobody
        self._index = PrefixIndex(self.limits.prefix_index_pages)
        self._max_tokens = RunningMean(memory=0.95)  # of admitted requests
        self._epoch = 0

    @property
    def waiting(self) -> int:
        return len(self._room)

    @property
    def replicas(self) -> tuple[str, ...]:
        return tuple(self._views)

    def replica_of(self, request_id: str) -> str | None:
        """Where the request was sent, or found."""
        return self._where.get(request_id)

    def outstanding(self, replica_id: str) -> tuple[str, ...]:
        """Requests believed to wait or run on the replica."""
        view = self._views.get(replica_id)
        return tuple(view.outstanding) if view is not None else ()

    def admit(self, ticket: AdmissionTicket, now: float) -> None:
        """Lets a request wait for a replica; raises QueueFull with the time after which to retry."""
        self._forget(ticket.request_id)
        self._ended.pop(ticket.request_id, None)
        if len(self._room) >= self.limits.max_waiting:
            raise QueueFull(len(self._room), self.limits.max_waiting, self.predicted_wait(now))
        self._max_tokens.add(ticket.max_tokens)
        self._room.push(ticket)

    def predicted_wait(self, now: float) -> float:
        """Seconds until those who wait now have all been served, within bounds."""
        tokens = int(self._max_tokens.value)
        rate = sum(
            view.digest.slots / max(1e-6, view.service_seconds(tokens, tokens)) for view in self._heard(now)
        )
        if rate <= 0.0:
            return LONGEST_RETRY_SECONDS
        return min(LONGEST_RETRY_SECONDS, max(SHORTEST_RETRY_SECONDS, len(self._room) / rate))

    def dispatch(self, now: float) -> list[Assignment]:
        """Assigns waiting requests to replicas while any replica may take more."""
        assignments: list[Assignment] = []
        passing: set[str] = set()
        views, ahead = self._heard(now), self.limits.queue_ahead
        while len(passing) < LOOKAHEAD and any(view.has_room(ahead) for view in views):
            ticket = self._room.head(passing)
            if ticket is None:
                break
            cached = self._index.cached_pages(ticket.page_hashes)
            view = choose(ticket, views, cached, ahead)
            if view is None:
                passing.add(ticket.request_id)
                continue
            self._room.serve(ticket)
            self._assign(ticket, view, cached.get(view.replica_id, 0), now)
            assignments.append(Assignment(ticket.request_id, view.replica_id))
        return assignments

    def abandon(self, request_id: str) -> None:
        """The client left, whether the request waits or runs; unknown ids are ignored."""
        self._forget(request_id)
        self._ended[request_id] = None
        if len(self._ended) > ENDED_REMEMBERED:
            self._ended.popitem(last=False)

    def finished(self, request_id: str) -> None:
        """The request ended where it ran; unknown ids are ignored."""
        self.abandon(request_id)

    def on_digest(self, digest: ReplicaDigest, now: float) -> None:
        """Takes a replica's report; the first one makes the replica known.

        Requests in it that are not known here are adopted: a scheduler that was restarted learns
        in this way what runs. Requests that a digest listed and the next does not have ended.
        """
        view = self._views.get(digest.replica_id)
        if view is None:
            view = self._views[digest.replica_id] = ReplicaView(digest, now)
        elif digest.sequence <= view.digest.sequence and not self._silent(view, now):
            return
        view.digest, view.seen_at = digest, now
        self._reconcile(view, now)

    def remove_replica(self, replica_id: str) -> list[str]:
        """Forgets a replica; returns the requests that were there and now have none."""
        view = self._views.pop(replica_id, None)
        if view is None:
            return []
        self._index.forget(replica_id)
        lost = list(view.outstanding)
        for request_id in lost:
            del self._where[request_id]
        return lost

    def expire(self, now: float) -> list[str]:
        """Replicas whose digests have stopped; each is reported until it is removed or heard again."""
        return [replica_id for replica_id, view in self._views.items() if self._silent(view, now)]

    def policies(self, now: float) -> dict[str, PhasePolicy]:
        """A new policy for every replica that is heard, under an epoch above all before."""
        told = [view.digest.policy_epoch for view in self._views.values()]
        self._epoch = max([self._epoch, *told]) + 1
        return {
            view.replica_id: pace(
                view.digest,
                target_seconds=self.limits.target_seconds,
                time_to_live=self.limits.policy_seconds,
                epoch=self._epoch,
            )
            for view in self._heard(now)
        }

    def _heard(self, now: float) -> list[ReplicaView]:
        return [view for view in self._views.values() if not self._silent(view, now)]

    def _silent(self, view: ReplicaView, now: float) -> bool:
        return now - view.seen_at > self.limits.digest_timeout_seconds

    def _assign(self, ticket: AdmissionTicket, view: ReplicaView, cached_pages: int, now: float) -> None:
        cached_tokens = cached_pages * view.digest.page_size
        view.outstanding[ticket.request_id] = Outstanding(
            assigned_at=now,
            prefill_tokens=max(0, ticket.prompt_tokens - cached_tokens),
            pages=view.pages_for(ticket) - cached_pages,
        )
        self._where[ticket.request_id] = view.replica_id
        self._index.add(ticket.page_hashes, view.replica_id)

    def _forget(self, request_id: str) -> None:
        self._room.discard(request_id)
        replica_id = self._where.pop(request_id, None)
        if replica_id is not None:
            del self._views[replica_id].outstanding[request_id]

    def _reconcile(self, view: ReplicaView, now: float) -> None:
        active = set(view.digest.active)
        for request_id in view.digest.active:
            if request_id in view.outstanding:
                view.outstanding[request_id].seen = True
            elif not self._known(request_id):
                view.outstanding[request_id] = Outstanding(assigned_at=now, seen=True)
                self._where[request_id] = view.replica_id
        for request_id, request in list(view.outstanding.items()):
            grace = 0.0 if request.seen else self.limits.release_grace_seconds
            if request_id not in active and now - request.assigned_at >= grace:
                self._forget(request_id)

    def _known(self, request_id: str) -> bool:
        return request_id in self._where or request_id in self._room or request_id in self._ended
