"""Tells running streams that their replica is gone, also when it hangs rather than dies."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from easel.cluster.errors import ClusterError, ReplicaLost

_RETRY_SECONDS = 0.5

Item = TypeVar("Item")


class ReplicaLosses:
    """Follows the scheduler's list of lost replicas; one outstanding call for all streams."""

    def __init__(self, losses: Callable[[int], Awaitable[tuple[int, list[str]]]]) -> None:
        self._losses = losses
        self._gone: dict[str, asyncio.Event] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        known = -1
        while True:
            try:
                known, replica_ids = await self._losses(known)
            except ClusterError:
                # The scheduler is being replaced; its successor starts a new list.
                known = -1
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for replica_id in replica_ids:
                self._mark(replica_id)

    async def guard(self, replica_id: str, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The same items, until the replica is lost: then raises ReplicaLost. Closes `items`."""
        lost = asyncio.ensure_future(self._gone.setdefault(replica_id, asyncio.Event()).wait())
        item = asyncio.ensure_future(anext(items))
        try:
            while True:
                await asyncio.wait({item, lost}, return_when=asyncio.FIRST_COMPLETED)
                if not item.done():
                    raise ReplicaLost(replica_id, "it stopped reporting")
                try:
                    yield item.result()
                except StopAsyncIteration:
                    return
                item = asyncio.ensure_future(anext(items))
        finally:
            for task in (item, lost):
                task.cancel()
            # A generator cannot be closed while its next item is being awaited.
            await asyncio.gather(item, lost, return_exceptions=True)
            await items.aclose()

    def _mark(self, replica_id: str) -> None:
        # A replica that comes back is watched anew.
        gone = self._gone.pop(replica_id, None)
        if gone is not None:
            gone.set()
