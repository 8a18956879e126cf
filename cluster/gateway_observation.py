"""What a gateway process under Ray is observed by: counts shared on its machine, the scheduler's numbers."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import ray

from easel.cluster.config import ClusterConfig
from easel.cluster.dispatch import RayBackend
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.gateway.observation import Observation
from easel.cluster.gateway.shared_counts import is_abandoned
from easel.cluster.scheduler_client import SchedulerClient
from easel.cluster.tallies import ClusterTallies
from easel.cluster.telemetry import Telemetry

_NODE_DIGITS = 16  # of Ray's id of the machine, which is a new one with each start of Ray


def shared_metrics(config: ClusterConfig, clock: Any, block_length: int) -> GatewayMetrics:
    """Counts in the folder that all gateways of this machine and port share."""
    return GatewayMetrics(
        clock, block_length, config.telemetry.metrics_directory or _default_folder(config.port)
    )


def observed(metrics: GatewayMetrics, telemetry: Telemetry, backend: RayBackend) -> Observation:
    """Asks the scheduler at each scrape, and adds what waits here for the journal."""
    scheduler = SchedulerClient()

    async def tallies() -> ClusterTallies:
        of_cluster = await scheduler.tallies()
        return of_cluster.with_journal(
            not backend.journal_degraded, backend.journal_buffered, backend.journal_lag_seconds
        )

    return Observation(telemetry, metrics, tallies)


def _default_folder(port: int) -> Path:
    node = cast(Any, ray).get_runtime_context().get_node_id()
    prefix = f"easel-metrics-{os.getuid()}-"
    folder = Path(tempfile.gettempdir()) / f"{prefix}{node[:_NODE_DIGITS]}-{port}"
    for other in folder.parent.glob(f"{prefix}*"):
        if other != folder and is_abandoned(other):
            shutil.rmtree(other, ignore_errors=True)
    return folder
