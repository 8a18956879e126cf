"""What the HTTP layer needs from the cluster behind it."""

from collections.abc import AsyncIterator
from typing import Protocol

from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import Request


class Backend(Protocol):
    """Runs requests somewhere and survives the loss of where."""

    def stream(self, request: Request) -> AsyncIterator[BlockEvent | CanvasSnapshot]:
        """Events of one request, in order, each block once; the last has a `finish`.

        Closing the iterator cancels the request. Raises QueueFull, RequestTooLong, or
        ClusterError when no replica can run it.
        """
        ...

    async def ready(self) -> bool:
        """Whether at least one replica can take a request."""
        ...

    async def status(self) -> dict[str, object]:
        """Replicas, queue and journal, for /health and operators; JSON values.

        The value of `journal` is "ok", "off", or "degraded" while Redis is away.
        """
        ...
