"""The durable record of requests, committed blocks and answers; the only module that talks to Redis.

Keys, all under the configured prefix. `{id}` is the request's or answer's id in braces, a hash
tag, so that the keys of one share a Redis Cluster slot:

    key            type  fields                                            lives for
    {id}:request   hash  request (JSON, as first admitted), epoch and      active_seconds after the last
                         owner of the last lease, until (ms, the lease's   renewal; terminal_seconds
                         end), finish (reason, once it has ended),         after its end
                         missing (something is, and its owner is told)
    {id}:blocks    hash  block index -> BlockEvent (JSON)                  the same
    {id}:answer    hash  record (JSON), fingerprint, status, detail,       active_seconds after the last
                         driver (gateway), turn (grows with each driver),  renewal; terminal_seconds after
                         until (ms, the driver's lease's end)              its end or its client's leaving
    background     zset  answer -> ms of its last renewal; of the          active_seconds after the last
                         background answers that have not ended            write

Leases are fields, not keys: where memory is short and `maxmemory-policy` is volatile-ttl, Redis
drops what expires soonest, which must be what has ended and not who owns what. With noeviction
a full Redis refuses writes: the journal counts as degraded, serving goes on.

What a user of Redis's access lists needs, the prefix being `easel:` (top-level commands, then
those of the scripts; HELLO and AUTH are everybody's; Redis before 7.2 does not know, and need not
be told of, client|setinfo):

    ACL SETUSER easel on >PASSWORD resetkeys ~easel:* resetchannels -@all +evalsha +script|load +ping
        +client|setinfo +time +hget +hmget +hset +hsetnx +hdel +hexists +hgetall +pexpire +pttl +zadd +zrem
        +zrangebyscore
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from ssl import TLSVersion
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as Unanswered

from easel.cluster import journal_scripts
from easel.cluster.errors import ConfigError, JournalUnavailable, StaleLease
from easel.cluster.journal_records import (
    Admission,
    CommittedBlock,
    Finished,
    JournaledRequest,
    Record,
    Renewal,
    Written,
    decode_block,
    decode_request,
    encode,
    without_gaps,
)
from easel.cluster.journal_scripts import Call
from easel.cluster.journal_settings import JournalSettings, ms, place_of
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import FinishReason, Request

Reply = TypeVar("Reply")

_CONNECTIONS = 16  # of one process
_TRIES = 4  # of an acquisition, each with a higher floor
_STALE, _FORGOTTEN = 0, 2  # what the scripts reply
_OWN_ENDS = frozenset({FinishReason.STOP, FinishReason.LENGTH})


class Journal:
    """One process's connections. Raises JournalUnavailable while Redis is away, quickly."""

    def __init__(self, settings: JournalSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Connects later. Raises ConfigError for a URL or certificates that cannot be used."""
        self.settings = settings
        self._clock = clock
        self._away_until = float("-inf")
        self._lanes = asyncio.Semaphore(_CONNECTIONS)
        self._redis = _client(settings)

    async def ping(self) -> None:
        await self._guarded(lambda: cast(Any, self._redis).ping())

    async def close(self) -> None:
        await self._redis.aclose()

    async def acquire_lease(self, request_id: str, owner: str, floor: int) -> int:
        """Make `owner` the request's owner, whoever was; the epoch is above the floor and any before.

        The floor must be no lower than any epoch the caller knows of, nor than the wall clock in
        ms. The same floor and owner again give the same epoch.
        """
        keys = self._request_keys(request_id)
        for _ in range(_TRIES):
            call = Call(journal_scripts.ACQUIRE, keys, (*self._fence(floor), owner))
            epoch = int((await self.exchange([call]))[0])
            if epoch > 0:
                return epoch
            floor = -epoch  # the clock went back; Redis remembers
        raise JournalUnavailable(self._place, f"the lease of {request_id} was taken {_TRIES} times meanwhile")

    async def renew(self, request_id: str, lease_epoch: int) -> None:
        """Raises StaleLease when the request has a newer owner."""
        await self._write_one(Renewal(request_id, lease_epoch))

    async def admit(self, request: Request) -> None:
        """Keep the request; what it says is committed is not kept, for the blocks say so."""
        await self._write_one(Admission(request))

    async def append_block(self, event: BlockEvent, lease_epoch: int) -> None:
        """Record a block, once. Raises StaleLease when the request has a newer owner."""
        await self._write_one(CommittedBlock(event, lease_epoch))

    async def finish(self, request_id: str, reason: FinishReason, lease_epoch: int) -> None:
        """Record the end and start the clock of the record's life. Raises StaleLease."""
        await self._write_one(Finished(request_id, reason, lease_epoch))

    async def write(self, records: Sequence[Record]) -> Written:
        """Write in order, in one exchange; returns the records that a newer owner made stale.

        It also returns those before which something is missing, because Redis was restarted
        without its data or records were dropped: their owner should offer all it knows again,
        from the Admission on.
        Safe to repeat. Raises JournalUnavailable, after which any part may have been written.
        """
        replies = await self.exchange([self._call(record) for record in records])
        answers = list(zip(records, replies, strict=True))
        return Written(
            stale=tuple(record for record, reply in answers if reply == _STALE),
            forgotten=tuple(record for record, reply in answers if reply == _FORGOTTEN),
        )

    async def read(self, request_id: str) -> JournaledRequest | None:
        """The request and its blocks, or None when the journal does not know it."""
        return (await self.read_all([request_id]))[0]

    async def read_all(self, request_ids: Sequence[str]) -> list[JournaledRequest | None]:
        """Several of them, in one exchange."""
        span = (ms(self.settings.lease_seconds),)
        calls = [Call(journal_scripts.READ, self._request_keys(name), span) for name in request_ids]
        return [_journaled(reply) for reply in await self.exchange(calls)]

    async def exchange(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in order, in one exchange; what they return.

        They must bear repetition. Raises JournalUnavailable, after which any part of them may
        have been run, or may be run later.
        """
        replies = await self._guarded(lambda: self._run(calls))
        for reply in replies:
            if isinstance(reply, ReadOnlyError):  # it is not the primary any more; another address may be
                await self._redis.connection_pool.disconnect()
            if isinstance(reply, Exception):
                raise JournalUnavailable(self._place, str(reply)) from reply
        return replies

    def key(self, identifier: str, name: str) -> str:
        return f"{self.settings.prefix}{{{identifier}}}:{name}"

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        """Replies, among them exceptions. A Redis that was restarted is given the scripts again."""
        replies = await self._pipeline([call_of(call) for call in calls])
        if any(isinstance(reply, NoScriptError) for reply in replies):
            scripts = {*journal_scripts.ALL, *(call.script for call in calls)}
            await self._pipeline([("SCRIPT LOAD", script.text) for script in scripts])
            replies = await self._pipeline([call_of(call) for call in calls])
        return replies

    async def _pipeline(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                cast(Any, pipeline).execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

    async def _write_one(self, record: Renewal | Admission | CommittedBlock | Finished) -> None:
        if (await self.write([record])).stale:
            epoch = 0 if isinstance(record, Admission) else record.lease_epoch
            raise StaleLease(record.request_id, epoch)

    def _call(self, record: Record) -> Call:
        keys = self._request_keys(record.request_id)
        match record:
            case Admission(request):
                text = encode(replace(request, committed=()))
                return Call(journal_scripts.ADMIT, keys, (text, ms(self.settings.active_seconds)))
            case CommittedBlock(event, epoch):
                text = encode(event if event.finish in _OWN_ENDS else replace(event, finish=None))
                return Call(journal_scripts.APPEND, keys, (*self._fence(epoch), event.block_index, text))
            case Finished(_, reason, epoch):
                return Call(journal_scripts.FINISH, keys, (*self._fence(epoch), reason.value))
            case Renewal(_, epoch):
                return Call(journal_scripts.RENEW, keys, self._fence(epoch))

    def _request_keys(self, request_id: str) -> tuple[str, str]:
        return self.key(request_id, "request"), self.key(request_id, "blocks")

    def _fence(self, epoch: int) -> tuple[int, int, int, int]:
        lives = self.settings.lease_seconds, self.settings.active_seconds, self.settings.terminal_seconds
        return epoch, ms(lives[0]), ms(lives[1]), ms(lives[2])

    async def _guarded(self, exchange: Callable[[], Awaitable[Reply]]) -> Reply:
        """Run one exchange; after a failure the next ones fail at once until it is time to try again."""
        async with self._lanes:
            if self._clock() < self._away_until:
                raise JournalUnavailable(self._place, "it did not answer a moment ago")
            try:
                return await _cancellable(exchange())
            except (Unreachable, Unanswered, OSError) as error:
                self._away_until = self._clock() + self.settings.retry_seconds
                raise JournalUnavailable(self._place, str(error) or type(error).__name__) from error
            except RedisError as error:
                raise JournalUnavailable(self._place, str(error)) from error

    @property
    def _place(self) -> str:
        return place_of(self.settings.url)


async def _cancellable(exchange: Awaitable[Reply]) -> Reply:
    """Before Python 3.12 `asyncio.wait_for`, which the library uses, may swallow a cancellation.

    Then the exchange goes on to its end or to an error, and its caller as if nobody had cancelled it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await exchange
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def call_of(call: Call) -> tuple[str | int, ...]:
    """The command that runs a script Redis has."""
    return ("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments)


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """A hash as scripts return it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _journaled(reply: tuple[Sequence[str], Sequence[str], int]) -> JournaledRequest | None:
    request, blocks, live = pairs(reply[0]), pairs(reply[1]), reply[2]
    if not request and not blocks:
        return None
    found = without_gaps({int(index): decode_block(text) for index, text in blocks.items()})
    finish = found[-1].finish if found else None
    if finish is None and request.get("finish") == FinishReason.CANCELLED:
        finish = FinishReason.CANCELLED
    return JournaledRequest(
        request=decode_request(request["request"]) if "request" in request else None,
        blocks=found,
        finish=finish,  # an end without the last block is none
        owner=request.get("owner", "") if live else "",
        lease_epoch=int(request.get("epoch", 0)),
    )


def _client(settings: JournalSettings) -> Redis:
    options = _tls(settings)
    try:
        return cast(Any, Redis).from_url(
            settings.url,
            decode_responses=True,
            max_connections=_CONNECTIONS,
            socket_timeout=settings.timeout_seconds,
            socket_connect_timeout=settings.timeout_seconds,
            retry=Retry(NoBackoff(), 1),
            **options,
        )
    except ValueError:  # its text may hold a part of the password
        problem = "it is not redis://, rediss:// or unix:// as it should be; write what is special as %XX."
        raise ConfigError(f"journal.redis_url ({place_of(settings.url)})", problem) from None


def _tls(settings: JournalSettings) -> dict[str, Any]:
    files = {"ca_certs": settings.tls_ca, "certfile": settings.tls_cert, "keyfile": settings.tls_key}
    given = {name: path for name, path in files.items() if path is not None}
    for path in given.values():
        if not path.is_file():
            raise ConfigError("journal.tls_…", f"{path} is not a file.")
    if settings.url.startswith("rediss://"):
        strict = {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_min_version": TLSVersion.TLSv1_2,
        }
        return strict | {f"ssl_{name}": str(path) for name, path in given.items()}
    if given:
        raise ConfigError("journal.tls_…", f"{place_of(settings.url)} is no rediss:// URL.")
    return {}
