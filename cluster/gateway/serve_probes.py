"""GET /-/healthz and /-/routes, which KubeRay asks of whatever listens on the serving port.

They are Ray Serve's proxies' paths. Easel's gateways stand in for the proxies (decision 0003), so a
pod counts as ready for the serve service when its gateway does.
"""

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from easel.cluster.errors import ClusterError
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.names import APPLICATION


def serve_probes_router(gateway: Gateway) -> APIRouter:
    """The routes, bound to a gateway."""
    router = APIRouter(include_in_schema=False)

    @router.get("/-/healthz")
    async def healthz() -> Response:
        """200 once a replica can take a request, 503 until then, as /ready has it."""
        try:
            ready = await gateway.backend.ready()
        except ClusterError:
            ready = False
        return PlainTextResponse("success") if ready else PlainTextResponse("no replica is ready", 503)

    @router.get("/-/routes")
    async def routes() -> Response:
        """The application behind each prefix."""
        return JSONResponse({"/": APPLICATION})

    return router
