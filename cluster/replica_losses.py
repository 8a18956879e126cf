"""Tells running streams that their replica is gone, also when it hangs rather than dies."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import TypeVar

from easel.cluster.errors import ClusterError, ReplicaLost
from easel.cluster.tasks import end_tasks

_RETRY_SECONDS = 0.5
_WATCH_SECONDS = 1.0
_ABSENCE_SECONDS = 8.0  # of a replica that runs requests, from the scheduler's list, until it is given up

Item = TypeVar("Item")


class ReplicaLosses:
    """Follows the scheduler's list of lost replicas; one outstanding call for all streams."""

    def __init__(
        self,
        losses: Callable[[int], Awaitable[tuple[int, list[str]]]],
        known: Callable[[], Awaitable[list[str]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._losses = losses
        self._known = known
        self._clock = clock
        self._gone: dict[str, asyncio.Event] = {}
        self._guarded: Counter[str] = Counter()  # streams by replica
        self._absent: dict[str, float] = {}  # since when

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

    async def watch(self) -> None:
        """Until cancelled, give up replicas that a scheduler which was restarted has never heard of.

        One that hung while the scheduler died is in nobody's list, neither of the living nor of the lost.
        """
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if not self._guarded:
                self._absent.clear()
                continue
            try:
                self.compare(await self._known())
            except ClusterError:
                self._absent.clear()

    def compare(self, known: Collection[str]) -> None:
        """Mark the replicas that run requests and have been absent from `known` for too long."""
        now = self._clock()
        self._absent = {
            replica_id: self._absent.get(replica_id, now)
            for replica_id in self._guarded
            if replica_id not in known
        }
        for replica_id, since in self._absent.items():
            if now - since > _ABSENCE_SECONDS:
                self._mark(replica_id)

    async def guard(self, replica_id: str, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The same items, until the replica is lost: then raises ReplicaLost. Closes `items`."""
        lost = asyncio.ensure_future(self._gone.setdefault(replica_id, asyncio.Event()).wait())
        item = asyncio.ensure_future(anext(items))
        self._guarded[replica_id] += 1
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
            self._guarded[replica_id] -= 1
            if not self._guarded[replica_id]:
                del self._guarded[replica_id]
            # A generator cannot be closed while its next item is being awaited.
            await end_tasks([item, lost])
            await items.aclose()

    def _mark(self, replica_id: str) -> None:
        # A replica that comes back is watched anew.
        gone = self._gone.pop(replica_id, None)
        if gone is not None:
            gone.set()
