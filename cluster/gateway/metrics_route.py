"""GET /metrics: what the machine's gateways count, and what the scheduler knows of the cluster."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from starlette.responses import Response

from easel.cluster.errors import ClusterError
from easel.cluster.gateway.cluster_metrics import cluster_families
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.tallies import ClusterTallies

LOGGER = logging.getLogger("easel.gateway")
PATIENCE_SECONDS = 2.0  # Prometheus gives a scrape ten by default

Tallies = Callable[[], Awaitable[ClusterTallies]]


def metrics_router(metrics: GatewayMetrics, tallies: Tallies | None) -> APIRouter:
    """The route. It needs no API key; `tallies` None: there is no cluster to ask."""
    router = APIRouter(tags=["operations"])

    @router.get("/metrics", response_model=None)
    async def exposition() -> Response:
        """Prometheus text format."""
        text = metrics.exposition(await _of_cluster(tallies))
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return router


async def _of_cluster(tallies: Tallies | None) -> list[Metric]:
    """Nothing while the scheduler is away: a gap in a graph is true, a repeated number is not."""
    if tallies is None:
        return []
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return cluster_families(await tallies())
    except (ClusterError, TimeoutError) as error:
        LOGGER.warning("the cluster's metrics are left out: %s", error)
        return []
