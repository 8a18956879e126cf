"""GET /health and /ready: for probes and operators. They need no API key."""

import logging

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.responses import Response

from easel.cluster.gateway.error_answers import response_of
from easel.cluster.gateway.errors import Unavailable
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.statistics import Json

LOGGER = logging.getLogger("easel.gateway")


def operations_router(gateway: Gateway) -> APIRouter:
    """The routes, bound to a gateway."""
    router = APIRouter(tags=["operations"])

    @router.get("/health")
    async def health() -> Json:
        """200 while this process lives; `status` says degraded when a part behind it is away."""
        return await _health(gateway)

    @router.get("/ready", response_model=None)
    async def ready() -> Response:
        """200 once a replica can take a request, 503 until then."""
        if await gateway.backend.ready():
            return JSONResponse({"status": "ready"})
        retry_after = gateway.settings.retry_after_seconds
        return response_of(Unavailable("No worker replica is ready yet; try again.", retry_after))

    return router


async def _health(gateway: Gateway) -> Json:
    try:
        status = await gateway.backend.status()
    except Exception as error:  # a cluster that cannot be asked is degraded; this process lives
        LOGGER.warning("the cluster's status could not be read", exc_info=error)
        return {"status": "degraded", "reason": "the cluster's status could not be read"}
    degraded = status.get("journal") == "degraded"
    return {"status": "degraded" if degraded else "ok", "model": gateway.model.name, **status}
