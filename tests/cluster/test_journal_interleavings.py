"""Whatever order leases, writes, restarts and late exchanges come in, epochs and blocks never go back."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from easel.cluster import journal_scripts
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_records import Admission, CommittedBlock, Finished, Record, Renewal
from easel.cluster.journal_scripts import Call
from easel.cluster.valkey_server import EmbeddedValkey
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import FinishReason
from tests.cluster.fakes import a_block, a_request

Reply = TypeVar("Reply")

REQUESTS = ("p", "q")
OWNERS = ("a", "b", "c")
BLOCKS = 4  # of every request
REFUSED, WRITTEN, FORGOTTEN = "refused", "written", "forgotten"


@dataclass(slots=True)
class Known:
    """What Redis should know of one request."""

    epoch: int | None = None
    owner: str = ""
    admitted: bool = False
    missing: bool = False  # something is, and the owner has not begun to offer it again
    blocks: dict[int, BlockEvent] = field(default_factory=dict[int, BlockEvent])
    finish: FinishReason | None = None  # as it was last recorded

    def acquire(self, owner: str, floor: int) -> int | None:
        """The epoch that one run of an acquisition comes to; None: it takes nothing."""
        held = self.epoch or 0
        if held == floor + 1 and self.owner in ("", owner):
            self.epoch, self.owner = held, owner
            return held
        if held > floor:
            return None
        self.epoch, self.owner, self.finish = floor + 1, owner, None
        return self.epoch

    def write(self, record: CommittedBlock | Finished | Renewal) -> str:
        held, epoch = self.epoch, record.lease_epoch
        if held is not None and epoch < held:
            return REFUSED
        if held is None or epoch > held:
            self.epoch, self.owner, self.finish = epoch, "", None
        self.missing |= held is None
        if isinstance(record, CommittedBlock):
            self.missing |= not self._append(record.event)
        if isinstance(record, Finished) and self.finish is not FinishReason.LENGTH:
            self.finish = record.reason
        return FORGOTTEN if self.missing else WRITTEN

    def _append(self, event: BlockEvent) -> bool:
        """Whether nothing is missing before it."""
        if event.block_index in self.blocks:
            return True
        self.blocks[event.block_index] = event
        return event.block_index == 0 or event.block_index - 1 in self.blocks

    @property
    def readable(self) -> tuple[BlockEvent, ...]:
        found = [self.blocks.get(index) for index in range(BLOCKS)]
        return tuple(event for event in found[: [*found, None].index(None)] if event is not None)

    @property
    def end(self) -> FinishReason | None:
        """A request has come to its own end when its last block can be read."""
        if len(self.readable) == BLOCKS:
            return FinishReason.LENGTH
        return self.finish if self.finish is FinishReason.CANCELLED else None


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease somebody believes to have."""

    request_id: str
    epoch: int


class Interleavings(RuleBasedStateMachine):
    """Several owners, a scheduler that forgets, a clock that jumps, a Redis that is away or restarted."""

    url: ClassVar[str]  # of the Valkey

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.journal = Journal(JournalSettings(self.url, timeout_seconds=10.0))
        self.known = {name: Known() for name in REQUESTS}
        self.grants: list[Grant] = []
        self.late: list[tuple[str, str, int] | list[Record]] = []  # exchanges that Redis has not run yet
        self.wall = 1000
        self.last_epoch = 0  # what the scheduler remembers
        self.writes = 0
        self.run(self.forget_everything())

    def run(self, work: Awaitable[Reply]) -> Reply:
        return self.loop.run_until_complete(work)

    async def forget_everything(self) -> None:
        await self.journal._redis.flushall()
        await self.journal._redis.script_flush()

    @rule(
        name=st.sampled_from(REQUESTS),
        owner=st.sampled_from(OWNERS),
        jump=st.sampled_from([0, 0, 0, 300, -300]),
        restart=st.booleans(),
        late=st.booleans(),
    )
    def acquire(self, name: str, owner: str, jump: int, restart: bool, late: bool) -> None:
        """A late one is not answered: Redis is away, and the scheduler grants the epoch by itself."""
        self.wall = max(1, self.wall + jump)
        self.last_epoch = 0 if restart else self.last_epoch
        floor = self.floor(name)
        if late:
            self.late.append((name, owner, floor))
            self.granted(name, floor + 1)
            return
        before = self.known[name].epoch or 0
        epoch = self.run(self.journal.acquire_lease(name, owner, floor))
        assert epoch == (self.known[name].acquire(owner, floor) or self.known[name].acquire(owner, before))
        assert epoch >= before
        self.granted(name, epoch)

    @precondition(lambda self: self.grants)
    @rule(
        age=st.integers(0, 3),
        indices=st.lists(st.integers(0, BLOCKS - 1), max_size=BLOCKS),
        last=st.sampled_from(["admit", "length", "cancelled", "renew"]),
        late=st.booleans(),
    )
    def write(self, age: int, indices: list[int], last: str, late: bool) -> None:
        """In any order, by anybody who ever had a lease. No two of them write the same."""
        grant = self.grants[-1 - age % len(self.grants)]
        name, epoch = grant.request_id, grant.epoch
        records: list[Record] = [self.block(index, grant) for index in indices]
        if last == "admit":
            records.append(Admission(a_request(name, BLOCKS)))
        else:
            ends = [Finished(name, FinishReason(last), epoch)] if last != "renew" else []
            records += ends or [Renewal(name, epoch)]
        self.send(records, late)

    @precondition(lambda self: self.late)
    @rule(index=st.integers(0, 5), again=st.booleans())
    def a_late_exchange_is_run(self, index: int, again: bool) -> None:
        index %= len(self.late)
        exchange = self.late[index] if again else self.late.pop(index)
        if isinstance(exchange, tuple):
            self.run_late_acquisition(*exchange)
        else:
            self.send(exchange, late=False)

    @precondition(lambda self: any(known.blocks for known in self.known.values()))
    @rule(name=st.sampled_from(REQUESTS), all_of_it=st.booleans())
    def redis_restarts(self, name: str, all_of_it: bool) -> None:
        """Without its data, or without its last moment."""
        if all_of_it:
            self.run(self.forget_everything())
            self.known = {name: Known() for name in REQUESTS}
        elif self.known[name].blocks:
            index = max(self.known[name].blocks)
            del self.known[name].blocks[index]
            self.run(self.journal._redis.hdel(self.journal.key(name, "blocks"), str(index)))

    @invariant()
    def all_is_read_as_it_was_first_written(self) -> None:
        for name, found in zip(REQUESTS, self.run(self.journal.read_all(REQUESTS)), strict=True):
            known = self.known[name]
            if found is None:
                assert known == Known()
                continue
            assert found.lease_epoch == (known.epoch or 0)
            assert (found.request is not None) == known.admitted
            assert (found.blocks, found.finish) == (known.readable, known.end)
            assert found.owner in ("", known.owner)

    def teardown(self) -> None:
        try:
            self.run(self.nothing_stays_for_ever())
        finally:
            self.run(self.journal.close())
            self.loop.close()

    async def nothing_stays_for_ever(self) -> None:
        for key in await self.journal._redis.keys("*"):
            assert await self.journal._redis.pttl(key) > 0

    def floor(self, name: str) -> int:
        """As the scheduler reckons it; a gateway tells it the request's last epoch."""
        self.wall += 1
        told = max((grant.epoch for grant in self.grants if grant.request_id == name), default=0)
        return max(self.wall, self.last_epoch, told)

    def granted(self, name: str, epoch: int) -> None:
        assert all(grant.epoch < epoch for grant in self.grants if grant.request_id == name)
        self.last_epoch = max(self.last_epoch, epoch)
        self.grants.append(Grant(name, epoch))

    def run_late_acquisition(self, name: str, owner: str, floor: int) -> None:
        """Nobody waits for its answer any more, so nobody tries again."""
        keys = (self.journal.key(name, "request"), self.journal.key(name, "blocks"))
        call = Call(journal_scripts.ACQUIRE, keys, (*self.journal._fence(floor), owner))
        epoch = int(self.run(self.journal.exchange([call]))[0])
        held = self.known[name].epoch or 0
        assert epoch == (self.known[name].acquire(owner, floor) or -held)

    def block(self, index: int, grant: Grant) -> CommittedBlock:
        self.writes += 1
        event = a_block(index, request_id=grant.request_id, last=index == BLOCKS - 1)
        return CommittedBlock(replace(event, seconds=float(self.writes)), grant.epoch)

    def send(self, records: list[Record], late: bool) -> None:
        if late:
            self.late.append(records)
            return
        written = self.run(self.journal.write(records))
        for record in records:
            known = self.known[record.request_id]
            if isinstance(record, Admission):
                known.admitted, known.missing = True, False
                continue
            expected = known.write(record)
            assert (record in written.stale) == (expected == REFUSED)
            assert (record in written.forgotten) == (expected == FORGOTTEN)


def test_epochs_and_blocks_never_go_back(valkey: EmbeddedValkey) -> None:
    Interleavings.url = valkey.url
    run_state_machine_as_test(  # pyright: ignore[reportUnknownVariableType]
        Interleavings,
        settings=settings(
            max_examples=50,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
