"""Write-behind: records are buffered and flushed to the journal every few tens of milliseconds.

Nothing here ever delays a request. While Redis is away records pile up, in order and up to a
limit; on its return they are written, and those already there are recognised by their keys.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from easel.cluster.errors import JournalUnavailable
from easel.cluster.journal_records import Record

_BATCH = 500  # records in one exchange


class JournalSink(Protocol):
    """Where records go."""

    async def write(self, records: list[Record]) -> list[Record]:
        """Write in order; returns the stale ones. Raises JournalUnavailable."""
        ...


class JournalWriter:
    """One process's buffer. `offer` is called from the event loop that runs `run`."""

    def __init__(
        self,
        journal: JournalSink,
        on_stale: Callable[[Record], None],
        flush_seconds: float = 0.03,
        buffer_records: int = 20_000,
    ) -> None:
        self._journal = journal
        self._on_stale = on_stale
        self._flush_seconds = flush_seconds
        self._limit = buffer_records
        self._buffer: deque[Record] = deque()
        self._offered = asyncio.Event()
        self.degraded = False  # Redis was away at the last attempt
        self.dropped = 0  # records lost to the buffer's limit

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def offer(self, record: Record) -> None:
        """Queue a record; when the buffer is full the oldest is lost, and counted."""
        if len(self._buffer) >= self._limit:
            self._buffer.popleft()
            self.dropped += 1
        self._buffer.append(record)
        self._offered.set()

    async def run(self) -> None:
        """Flush until cancelled, and once more then."""
        try:
            while True:
                await self._offered.wait()
                await asyncio.sleep(self._flush_seconds)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Write what is buffered. An unreachable journal leaves the rest where it is."""
        while self._buffer:
            batch = [self._buffer[index] for index in range(min(_BATCH, len(self._buffer)))]
            dropped = self.dropped
            try:
                stale = await self._journal.write(batch)
            except JournalUnavailable:
                self.degraded = True
                return
            self.degraded = False
            # What was lost meanwhile came off the same end.
            for _ in range(max(0, len(batch) - (self.dropped - dropped))):
                self._buffer.popleft()
            for record in stale:
                self._on_stale(record)
        self._offered.clear()
