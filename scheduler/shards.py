"""Several central schedulers side by side, each with tenants and replicas of its own.

One scheduler's work grows with replicas, digests and arrivals; shards divide all three. A key
(the tenant, or the beginning of the prompt) always falls to the same shard, so a tenant's limits
and fair shares, or a prefix's replicas, are one shard's business. `Lending` evens out what
hashing cannot: the load. There should be several replicas for each shard.

    cluster = ShardedScheduler(limits, shards=4)  # wherever a ClusterScheduler is used
    cluster.admit(ticket, now)                    # goes to cluster.shards[cluster.shard_of(ticket)]
    cluster.dispatch(now)                         # of all shards
    cluster.on_digest(digest, now)                # goes to the shard that holds the replica
    cluster.policies(now)                         # lends replicas first
    cluster.holding(replica_id)                   # home shard, holder, epoch of the holding

All methods of ClusterScheduler are there with the same meaning. To time one shard as a process
of its own, call `cluster.shards[i]` directly for admit, dispatch, on_digest and orders, and
`cluster.lend(now)` once per tick; replicas have to be made known through `cluster.on_digest`.
"""

from dataclasses import replace
from enum import StrEnum
from random import Random

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.errors import SchedulerError
from easel.scheduler.lending import Holding, Lending
from easel.scheduler.messages import PhasePolicy, ReplicaDigest, ReplicaOrders
from easel.scheduler.placement import Assignment
from easel.scheduler.ring import HashRing


class ShardKey(StrEnum):
    """What decides the shard of a request."""

    TENANT = "tenant"  # limits and fair shares hold exactly
    PREFIX = "prefix"  # its first page; a tenant's limits then hold per shard, not in all


class ShardedScheduler:
    """ClusterSchedulers that share replicas. Each replica belongs to exactly one of them at a time."""

    def __init__(
        self,
        limits: ClusterLimits | None = None,
        *,
        shards: int = 2,
        key: ShardKey = ShardKey.TENANT,
        lending: bool = True,
        seed: int = 0,
    ) -> None:
        self.limits = limits if limits is not None else ClusterLimits()
        own = replace(self.limits, max_waiting=-(-self.limits.max_waiting // shards))
        self.shards = tuple(ClusterScheduler(own, Random(seed + i)) for i in range(shards))
        self._ring = HashRing(shards)
        self._key = key
        self._lends = lending
        self._lending = Lending(self.shards)

    @property
    def waiting(self) -> int:
        return sum(shard.waiting for shard in self.shards)

    @property
    def replicas(self) -> tuple[str, ...]:
        return tuple(name for shard in self.shards for name in shard.replicas)

    def shard_of(self, ticket: AdmissionTicket) -> int:
        """The shard a request belongs to."""
        if self._key is ShardKey.TENANT:
            key = ticket.tenant.encode()
        else:
            key = ticket.page_hashes[0] if ticket.page_hashes else ticket.request_id.encode()
        if len(self._lending.book) < len(self.shards):  # some shards have no replica
            return next((i for i in self._ring.walk(key) if self.shards[i].replicas), self._ring.owner(key))
        return self._ring.owner(key)

    def holding(self, replica_id: str) -> Holding | None:
        """Which shard a replica belongs to, and which one has it now."""
        return self._lending.book.get(replica_id)

    def replica_of(self, request_id: str) -> str | None:
        """Where the request was sent, or found."""
        return next((r for shard in self.shards if (r := shard.replica_of(request_id)) is not None), None)

    def outstanding(self, replica_id: str) -> tuple[str, ...]:
        """Requests believed to wait or run on the replica."""
        return self._holder(replica_id).outstanding(replica_id)

    def admit(self, ticket: AdmissionTicket, now: float) -> None:
        """As ClusterScheduler.admit, in the ticket's shard."""
        shard = self.shard_of(ticket)
        for other in self.shards:
            if other is not self.shards[shard] and other.replica_of(ticket.request_id) is not None:
                other.finished(ticket.request_id)  # it was adopted there after a restart
        self.shards[shard].admit(ticket, now)

    def shed(self, now: float) -> list[tuple[str, SchedulerError]]:
        """As ClusterScheduler.shed, of all shards."""
        return [late for shard in self.shards for late in shard.shed(now)]

    def predicted_wait(self, now: float) -> float:
        """The longest of the shards'."""
        return max(shard.predicted_wait(now) for shard in self.shards)

    def dispatch(self, now: float) -> list[Assignment]:
        """As ClusterScheduler.dispatch, of all shards in which anybody waits."""
        return [assignment for shard in self.shards if shard.waiting for assignment in shard.dispatch(now)]

    def abandon(self, request_id: str) -> None:
        """The client left, whether the request waits or runs; unknown ids are ignored."""
        self.finished(request_id)

    def finished(self, request_id: str, output_tokens: int | None = None) -> None:
        """As ClusterScheduler.finished."""
        for shard in self.shards:
            shard.finished(request_id, output_tokens)

    def on_digest(self, digest: ReplicaDigest, now: float) -> None:
        """As ClusterScheduler.on_digest; a new replica is given to a shard that has no more than others."""
        if self.holding(digest.replica_id) is None:
            self._lending.add(digest.replica_id, self._home(digest.replica_id), now)
        self._holder(digest.replica_id).on_digest(digest, now)

    def drain(self, replica_id: str) -> None:
        """As ClusterScheduler.drain."""
        self._holder(replica_id).drain(replica_id)

    def remove_replica(self, replica_id: str) -> list[str]:
        """As ClusterScheduler.remove_replica."""
        lost = self._holder(replica_id).remove_replica(replica_id)
        self._lending.remove(replica_id)
        return lost

    def expire(self, now: float) -> list[str]:
        """Replicas whose digests have stopped; each is reported until it is removed or heard again."""
        return [name for shard in self.shards for name in shard.expire(now)]

    def policies(self, now: float) -> dict[str, PhasePolicy]:
        """As ClusterScheduler.policies, of all shards; replicas are lent and given back first."""
        self.lend(now)
        told: dict[str, PhasePolicy] = {}
        for shard in self.shards:
            told.update(shard.policies(now))
        return told

    def orders(self, replica_id: str, now: float) -> ReplicaOrders:
        """As ClusterScheduler.orders."""
        return self._holder(replica_id).orders(replica_id, now)

    def lend(self, now: float) -> None:
        """Moves replicas between shards, if lending is on."""
        if self._lends:
            self._lending.look(now)

    def _holder(self, replica_id: str) -> ClusterScheduler:
        holding = self.holding(replica_id)
        return self.shards[0 if holding is None else holding.holder]

    def _home(self, replica_id: str) -> int:
        """The first shard on the replica's walk with no more than an even share."""
        counts = [0] * len(self.shards)
        for holding in self._lending.book.values():
            counts[holding.home] += 1
        most = -(-(sum(counts) + 1) // len(counts))
        return next(shard for shard in self._ring.walk(replica_id.encode()) if counts[shard] < most)
