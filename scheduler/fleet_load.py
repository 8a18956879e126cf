"""What there is to do in the cluster, against what its replicas can do; what scaling goes by."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from easel.scheduler.central import ClusterScheduler
from easel.scheduler.messages import ReplicaDigest


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """One replica that takes requests."""

    replica_id: str
    requests: int  # that wait or run there
    canvases: int  # it can denoise together while a step stays within its target
    refresh_tokens: int  # done since it started
    refresh_seconds: float  # that one of them takes


@dataclass(frozen=True, slots=True)
class FleetLoad:
    """All replicas that take requests, and what has none of them."""

    replicas: tuple[ReplicaLoad, ...]
    waiting: int = 0  # requests without a replica
    moving: int = 0  # requests on replicas that are about to go
    wait_seconds: float = 0.0  # predicted, until all that wait have a slot

    @property
    def requests(self) -> int:
        return self.waiting + self.moving + sum(replica.requests for replica in self.replicas)


def fleet_load(
    central: ClusterScheduler, digests: Mapping[str, ReplicaDigest], leaving: Collection[str], now: float
) -> FleetLoad:
    """The load of all replicas that `central` knows, from their latest digests.

    Those who wait although slots are free, by their tenants' limits say, are no reason for more replicas.
    """
    staying: list[ReplicaLoad] = []
    moving = 0
    for name in central.replicas:
        digest, requests = digests[name], len(central.outstanding(name))
        if name in leaving or digest.draining:
            moving += requests
        else:
            staying.append(replica_load(digest, requests, central.limits.target_seconds))
    free = sum(max(0, digests[one.replica_id].slots - one.requests) for one in staying)
    wait_seconds = central.predicted_wait(now) if central.waiting > free else 0.0
    return FleetLoad(tuple(staying), central.waiting, moving, wait_seconds)


def replica_load(digest: ReplicaDigest, requests: int, target_seconds: float) -> ReplicaLoad:
    """What a digest says of a replica that has so many requests; a step should take `target_seconds`."""
    return ReplicaLoad(
        digest.replica_id,
        requests,
        canvases_within(digest, target_seconds),
        digest.refresh_tokens,
        digest.cost.per_token,
    )


def canvases_within(digest: ReplicaDigest, target_seconds: float) -> int:
    """Canvases whose step is predicted to take no longer: from 1 to all slots, also before a fit."""
    cost = digest.cost
    used = (digest.pages - digest.pages_available) * digest.page_size
    context = used / digest.slots_used if digest.slots_used else 0.0
    each = digest.block_length * (cost.per_token + cost.per_head_row + cost.per_pair * context)
    if each <= 0.0:
        return digest.slots
    return max(1, min(digest.slots, int((target_seconds - cost.constant) / each)))
