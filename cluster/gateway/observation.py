"""By what a gateway is observed from outside: its log and spans, its counts, the cluster's numbers."""

from dataclasses import dataclass, field

from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.gateway.metrics_route import Tallies
from easel.cluster.placement_watch import PlacementWatch
from easel.cluster.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Observation:
    """The default one is silent, and counts by itself."""

    telemetry: Telemetry = field(default_factory=Telemetry)
    metrics: GatewayMetrics | None = None  # None: the gateway makes its own
    tallies: Tallies | None = None  # None: there is no cluster to ask


@dataclass(frozen=True, slots=True)
class CountedPlacements:
    """A PlacementWatch that counts how requests leave replicas, in front of another one."""

    watch: PlacementWatch
    metrics: GatewayMetrics

    def placed(self, request_id: str, replica_id: str, attempt: int) -> None:
        """See PlacementWatch."""
        self.watch.placed(request_id, replica_id, attempt)

    def left(self, request_id: str, replica_id: str, how: str) -> None:
        """See PlacementWatch."""
        self.metrics.moved.labels(how).inc()
        self.watch.left(request_id, replica_id, how)
