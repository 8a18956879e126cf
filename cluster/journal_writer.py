"""Write-behind: records are buffered and flushed to the journal every few tens of milliseconds.

Nothing here ever delays a request. While Redis is away records pile up, in order and up to a
limit of records and of tokens in them; on its return they are written, and those already there
are recognised by their keys. Beyond the limit the oldest are lost: a reader sees the gap, not an
answer without a part, and the owner is asked to offer the rest of the request again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from easel.cluster.errors import JournalUnavailable
from easel.cluster.journal_records import Admission, CommittedBlock, Record, Renewal, Written

_BATCH = 500  # records in one exchange
_BATCH_TOKENS = 200_000  # beyond these it is not filled up; about a megabyte
_TOKENS_PER_RECORD = 256  # the buffer holds so many times its records' limit
_AWAY_SECONDS = 0.5  # between two attempts while Redis is away, or full


class JournalSink(Protocol):
    """Where records go."""

    async def write(self, records: list[Record]) -> Written:
        """Write in order. Raises JournalUnavailable."""
        ...


def nobody(_: object) -> None:
    """For writers that own no lease: nothing they write can be stale or follow what is forgotten."""


class JournalWriter:
    """One process's buffer. `offer` is called from the event loop that runs `run`.

    `on_stale` gets each record that was refused; `on_forgotten` the id of each request of which
    the journal has lost a part, whose owner should offer all it knows of it again.
    """

    def __init__(
        self,
        journal: JournalSink,
        on_stale: Callable[[Record], None],
        flush_seconds: float = 0.03,
        buffer_records: int = 20_000,
        *,
        on_forgotten: Callable[[str], None] = nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._on_stale = on_stale
        self._on_forgotten = on_forgotten
        self._flush_seconds = flush_seconds
        self._limit = buffer_records
        self._clock = clock
        self._buffer: deque[Record] = deque()
        self._offered_at: deque[float] = deque()  # when each of the buffer's records came
        self._tokens = 0  # in the buffer's records
        self._renewals: set[Renewal] = set()  # in the buffer
        self._offered = asyncio.Event()
        self.degraded = False  # Redis was away, or full, at the last attempt
        self.dropped = 0  # records lost to the buffer's limits

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest record that is not written yet."""
        return self._clock() - self._offered_at[0] if self._offered_at else 0.0

    def offer(self, record: Record) -> None:
        """Queue a record; when the buffer is full the oldest are lost, and counted."""
        if isinstance(record, Renewal):
            if record in self._renewals:
                return  # one is as good as many
            self._renewals.add(record)
        self._buffer.append(record)
        self._offered_at.append(self._clock())
        self._tokens += _tokens(record)
        while len(self._buffer) > self._limit or self._tokens > self._limit * _TOKENS_PER_RECORD:
            if len(self._buffer) == 1:
                break  # one that is larger than the limit
            self._pop()
            self.dropped += 1
        self._offered.set()

    async def run(self) -> None:
        """Flush until cancelled, and once more then."""
        try:
            while True:
                await self._offered.wait()
                pause = max(self._flush_seconds, _AWAY_SECONDS) if self.degraded else self._flush_seconds
                await asyncio.sleep(pause)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Write what is buffered. A journal that is away, or full, leaves the rest where it is."""
        while self._buffer:
            batch = self._batch()
            dropped = self.dropped
            try:
                written = await self._journal.write(batch)
            except JournalUnavailable:
                self.degraded = True
                return
            self.degraded = False
            # What was lost meanwhile came off the same end.
            for _ in range(max(0, len(batch) - (self.dropped - dropped))):
                self._pop()
            for record in written.stale:
                self._on_stale(record)
            for request_id in dict.fromkeys(record.request_id for record in written.forgotten):
                self._on_forgotten(request_id)
        self._offered.clear()

    def _batch(self) -> list[Record]:
        batch: list[Record] = []
        tokens = 0
        for record in self._buffer:
            if len(batch) == _BATCH or tokens >= _BATCH_TOKENS:
                break
            batch.append(record)
            tokens += _tokens(record)
        return batch

    def _pop(self) -> None:
        record = self._buffer.popleft()
        self._offered_at.popleft()
        self._tokens -= _tokens(record)
        if isinstance(record, Renewal):
            self._renewals.discard(record)


def _tokens(record: Record) -> int:
    match record:
        case Admission(request):
            return len(request.prompt)
        case CommittedBlock(event, _):
            return len(event.tokens)
        case _:
            return 0
