"""What Ray Serve says of the worker deployment, for those who cannot see it from its replicas.

Ray reads its environment when it is first imported, so it is imported where it is used.
"""
# ruff: noqa: PLC0415

import asyncio
import logging
from typing import Any, cast

from easel.cluster.names import APPLICATION, WORKERS

LOGGER = logging.getLogger("easel.scheduler")

_STOPPING = "STOPPING"


async def serve_stops_a_worker() -> bool:
    """Whether any worker replica is being stopped; false when Serve does not say."""
    return await asyncio.to_thread(_stopping) > 0


def _stopping() -> int:
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        application = cast(Any, serve).status().applications.get(APPLICATION)
    except (RayError, RayServeException) as error:
        LOGGER.warning("the state of the replicas could not be read: %s", error)
        return 0
    deployment = None if application is None else application.deployments.get(WORKERS)
    return 0 if deployment is None else int(deployment.replica_states.get(_STOPPING, 0))
