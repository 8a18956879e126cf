"""The durable record of requests and committed blocks, and the only module that talks to Redis.

Keys, all under the configured prefix; `{id}` is the request's id in braces, a hash tag, so that
one request's keys share a Redis Cluster slot:

    key             type  fields                            lives for
    {id}:request    hash  request (JSON), finish (reason)   active_seconds, then terminal_seconds
    {id}:blocks     hash  block index -> BlockEvent (JSON)  the same
    {id}:lease      hash  owner, epoch                      lease_seconds after the last sign of life

Epochs grow for as long as the lease lives and start from the caller's floor, the wall clock in
milliseconds, so that they also grow when Redis has forgotten the lease.
"""

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from easel.cluster import journal_scripts
from easel.cluster.errors import JournalUnavailable, StaleLease
from easel.cluster.journal_records import (
    Admission,
    CommittedBlock,
    Finished,
    JournaledRequest,
    Record,
    Renewal,
    decode_block,
    decode_request,
    encode,
    without_gaps,
)
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import FinishReason, Request


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Where the journal is and how long it remembers."""

    url: str
    prefix: str = "easel:"
    lease_seconds: float = 15.0
    active_seconds: float = 86_400.0
    terminal_seconds: float = 600.0
    timeout_seconds: float = 0.5  # of one exchange with Redis
    retry_seconds: float = 2.0  # how long an unreachable Redis is left alone
    flush_seconds: float = 0.03  # between two write-behind pipelines
    buffer_records: int = 20_000  # kept while Redis is away


class Journal:
    """One process's connection. Raises JournalUnavailable while Redis is away, quickly."""

    def __init__(self, settings: JournalSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._away_until = float("-inf")
        self._redis: Redis = cast(Any, Redis).from_url(
            settings.url,
            decode_responses=True,
            socket_timeout=settings.timeout_seconds,
            socket_connect_timeout=settings.timeout_seconds,
            retry=Retry(NoBackoff(), 1),
        )
        self._admit = self._redis.register_script(journal_scripts.ADMIT)
        self._acquire = self._redis.register_script(journal_scripts.ACQUIRE)
        self._renew = self._redis.register_script(journal_scripts.RENEW)
        self._append = self._redis.register_script(journal_scripts.APPEND)
        self._finish = self._redis.register_script(journal_scripts.FINISH)

    async def ping(self) -> None:
        await self._guarded(lambda: cast(Any, self._redis).ping())

    async def close(self) -> None:
        await self._redis.aclose()

    async def acquire_lease(self, request_id: str, owner: str, floor: int) -> int:
        """Make `owner` the request's owner, whoever was; the epoch is above the floor and any before."""
        arguments = [owner, _ms(self.settings.lease_seconds), floor]
        return int(await self._guarded(lambda: self._acquire([self._key(request_id, "lease")], arguments)))

    async def renew(self, request_id: str, lease_epoch: int) -> None:
        """Raises StaleLease when the request has a newer owner."""
        await self._write_one(Renewal(request_id, lease_epoch))

    async def admit(self, request: Request) -> None:
        await self._write_one(Admission(request))

    async def append_block(self, event: BlockEvent, lease_epoch: int) -> None:
        """Record a block, once. Raises StaleLease when the request has a newer owner."""
        await self._write_one(CommittedBlock(event, lease_epoch))

    async def finish(self, request_id: str, reason: FinishReason, lease_epoch: int) -> None:
        """Record the end and start the clock of the record's life. Raises StaleLease."""
        await self._write_one(Finished(request_id, reason, lease_epoch))

    async def write(self, records: Sequence[Record]) -> list[Record]:
        """Write in order, in one exchange; returns the records that a newer owner made stale.

        Safe to repeat. Raises JournalUnavailable, after which any part may have been written.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for record in records:
            await self._queue(pipeline, record)
        replies = await self._guarded(pipeline.execute)
        return [record for record, reply in zip(records, replies, strict=True) if reply == 0]

    async def read(self, request_id: str) -> JournaledRequest | None:
        """The request and its blocks, or None when the journal does not know it."""
        pipeline = self._redis.pipeline(transaction=True)
        for name in ("request", "blocks", "lease"):
            pipeline.hgetall(self._key(request_id, name))
        request, blocks, lease = await self._guarded(pipeline.execute)
        if not request and not blocks and not lease:
            return None
        events = {int(index): decode_block(text) for index, text in blocks.items()}
        return JournaledRequest(
            request=decode_request(request["request"]) if "request" in request else None,
            blocks=without_gaps(events),
            finish=FinishReason(request["finish"]) if "finish" in request else None,
            owner=lease.get("owner", ""),
            lease_epoch=int(lease.get("epoch", 0)),
        )

    async def _write_one(self, record: Renewal | Admission | CommittedBlock | Finished) -> None:
        if await self.write([record]):
            epoch = 0 if isinstance(record, Admission) else record.lease_epoch
            raise StaleLease(record.request_id, epoch)

    async def _queue(self, pipeline: Pipeline, record: Record) -> None:
        request, blocks, lease = (
            self._key(record.request_id, name) for name in ("request", "blocks", "lease")
        )
        lease_ms, active_ms = _ms(self.settings.lease_seconds), _ms(self.settings.active_seconds)
        match record:
            case Admission(admitted):
                await self._admit([request], [encode(admitted), active_ms], pipeline)
            case CommittedBlock(event, epoch):
                arguments = [epoch, lease_ms, event.block_index, encode(event), active_ms]
                await self._append([lease, blocks], arguments, pipeline)
            case Finished(_, reason, epoch):
                arguments = [epoch, _ms(self.settings.terminal_seconds), reason.value]
                await self._finish([lease, blocks, request], arguments, pipeline)
            case Renewal(_, epoch):
                await self._renew([lease], [epoch, lease_ms], pipeline)

    def _key(self, request_id: str, name: str) -> str:
        return f"{self.settings.prefix}{{{request_id}}}:{name}"

    async def _guarded(self, exchange: Callable[[], Awaitable[Any]]) -> Any:
        """Run one exchange; after a failure the next ones fail at once until it is time to try again."""
        if self._clock() < self._away_until:
            raise JournalUnavailable(self._place, "it did not answer a moment ago")
        try:
            return await exchange()
        except (RedisError, OSError) as error:
            self._away_until = self._clock() + self.settings.retry_seconds
            raise JournalUnavailable(self._place, str(error) or type(error).__name__) from error

    @property
    def _place(self) -> str:
        """The URL without its password."""
        return re.sub(r"//[^/@]*@", "//…@", self.settings.url)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
