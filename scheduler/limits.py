"""What the operator allows the central scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from easel.scheduler.tenants import TenantLimits
from easel.scheduler.valve import ValveBounds


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
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict[str, TenantLimits])  # by name
    default_tenant: TenantLimits = field(default_factory=TenantLimits)  # of those without a name there
    valve: ValveBounds = field(default_factory=ValveBounds)
    preempt: bool = True  # a request of a sooner class may take a later one's slot
    rebalance: bool = True  # requests move from busy replicas to idle ones
