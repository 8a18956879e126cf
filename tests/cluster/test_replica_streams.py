"""One replica's requests: what reaches the caller, the engine and the journal."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest

from easel.cluster.errors import StaleLease
from easel.cluster.journal_records import Admission, CommittedBlock, Finished, Record, Renewal
from easel.cluster.replica_streams import SNAPSHOTS_KEPT, Event, ReplicaStreams
from easel.scheduler.errors import RequestTooLong
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, GenerationTask
from easel.scheduler.request import FinishReason, Request
from easel.worker.errors import EngineStopped
from tests.cluster.fakes import a_block, a_request

pytestmark = pytest.mark.asyncio

CANCELLED = BlockEvent("r", -1, (), 0, 0.0, 0.0, FinishReason.CANCELLED)


@dataclass(slots=True)
class FakeEngine:
    """Remembers what it was told."""

    submitted: list[Request] = field(default_factory=list[Request])
    cancelled: list[str] = field(default_factory=list[str])
    stopped: bool = False

    def submit(self, request: Request) -> None:
        if self.stopped:
            raise EngineStopped("it was stopped")
        self.submitted.append(request)

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)


@dataclass(slots=True)
class Replica:
    """Streams over a fake engine and a list for a journal."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    journal: list[Record] = field(default_factory=list[Record])
    streams: ReplicaStreams = field(init=False)

    def __post_init__(self) -> None:
        self.streams = ReplicaStreams(self.engine, self.journal.append)

    async def start(self, epoch: int = 1) -> asyncio.Future[list[Event]]:
        """A caller that reads to the end, already waiting for its first event."""

        async def collect() -> list[Event]:
            return [event async for event in self.streams.run(GenerationTask(a_request(), epoch))]

        caller = asyncio.ensure_future(collect())
        for _ in range(3):
            await asyncio.sleep(0)
        return caller


async def test_blocks_are_journaled_under_the_lease_and_reach_the_caller_in_order() -> None:
    replica = Replica()
    caller = await replica.start(epoch=7)
    blocks = [a_block(0), a_block(1, last=True)]
    for block in blocks:
        replica.streams.deliver([block])
    assert await caller == blocks
    assert replica.journal == [
        CommittedBlock(blocks[0], 7),
        CommittedBlock(blocks[1], 7),
        Finished("r", FinishReason.LENGTH, 7),
    ]
    assert replica.engine.cancelled == []


async def test_a_block_is_offered_to_the_journal_before_the_caller_sees_it() -> None:
    replica = Replica()
    async with aclosing(replica.streams.run(GenerationTask(a_request(), 1))) as events:
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        replica.streams.deliver([a_block(0)])
        assert not first.done()
        assert replica.journal == [CommittedBlock(a_block(0), 1)]
        assert await first == a_block(0)


async def test_closing_the_stream_cancels_and_the_end_is_still_journaled() -> None:
    replica = Replica()
    events = replica.streams.run(GenerationTask(a_request(), 1))
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    replica.streams.deliver([a_block(0)])
    await first
    await events.aclose()
    assert replica.engine.cancelled == ["r"]
    replica.streams.deliver([CANCELLED])
    assert replica.journal[-1] == Finished("r", FinishReason.CANCELLED, 1)


async def test_a_refusal_reaches_the_caller() -> None:
    replica = Replica()
    caller = await replica.start()
    replica.streams.refuse("r", RequestTooLong(9, 8, 5))
    with pytest.raises(RequestTooLong):
        await caller
    assert replica.engine.cancelled == []


async def test_when_the_engine_stops_every_caller_is_told() -> None:
    replica = Replica()
    caller = await replica.start()
    replica.streams.fail_all(EngineStopped("out of memory"))
    with pytest.raises(EngineStopped, match="out of memory"):
        await caller


async def test_a_request_for_a_stopped_engine_fails_at_once() -> None:
    replica = Replica(FakeEngine(stopped=True))
    with pytest.raises(EngineStopped):
        await (await replica.start())


async def test_a_stale_owner_cancels_and_tells_its_caller() -> None:
    replica = Replica()
    caller = await replica.start(epoch=4)
    replica.streams.on_stale(Renewal("r", 4))
    with pytest.raises(StaleLease):
        await caller
    assert "r" in replica.engine.cancelled


async def test_a_stale_record_of_an_earlier_lease_leaves_the_present_owner_alone() -> None:
    replica = Replica()
    caller = await replica.start(epoch=5)
    replica.streams.on_stale(Renewal("r", 4))
    replica.streams.deliver([a_block(0, last=True)])
    assert await caller == [a_block(0, last=True)]


async def test_a_request_that_comes_back_waits_until_its_earlier_run_has_ended() -> None:
    replica = Replica()
    earlier = await replica.start(epoch=1)
    later = await replica.start(epoch=2)
    assert replica.engine.cancelled == ["r"]
    assert len(replica.engine.submitted) == 1
    replica.streams.deliver([CANCELLED])
    assert await earlier == [CANCELLED]
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(replica.engine.submitted) == 2
    replica.streams.deliver([a_block(0, last=True)])
    assert await later == [a_block(0, last=True)]
    assert replica.journal[-1] == Finished("r", FinishReason.LENGTH, 2)


async def test_leases_are_renewed_for_what_runs_and_only_that() -> None:
    replica = Replica()
    caller = await replica.start(epoch=3)
    replica.streams.renew_leases()
    assert replica.journal == [Renewal("r", 3)]
    replica.streams.deliver([a_block(0, last=True)])
    await caller
    replica.journal.clear()
    replica.streams.renew_leases()
    assert replica.journal == []


async def test_events_of_requests_that_are_not_here_are_dropped() -> None:
    replica = Replica()
    replica.streams.deliver([replace(a_block(0), request_id="gone")])
    assert replica.journal == []


async def test_a_request_that_is_handed_over_has_not_ended_for_the_journal() -> None:
    replica = Replica()
    caller = await replica.start(epoch=2)
    handed_over = replace(CANCELLED, finish=FinishReason.HANDED_OVER)
    replica.streams.deliver([a_block(0), handed_over])
    assert await caller == [a_block(0), handed_over]
    assert replica.journal == [CommittedBlock(a_block(0), 2)]
    assert replica.engine.cancelled == []


async def test_a_journal_that_forgot_a_request_is_told_all_of_it_again() -> None:
    replica = Replica()
    request = replace(a_request(), committed=a_block(0).tokens)
    task = GenerationTask(request, 3, history=(a_block(0),))
    async with aclosing(replica.streams.run(task)) as events:
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        replica.streams.deliver([a_block(1)])
        await first
        replica.journal.clear()
        replica.streams.on_forgotten("r")
        replica.streams.on_forgotten("gone")
    assert replica.journal == [
        Admission(a_request()),
        CommittedBlock(a_block(0), 3),
        CommittedBlock(a_block(1), 3),
    ]


async def test_a_slow_reader_misses_snapshots_and_never_a_block() -> None:
    replica = Replica()
    caller = await replica.start()
    snapshot = CanvasSnapshot("r", 0, 1, (1,), (True,), (1.0,), 0)
    last = a_block(0, last=True)
    replica.streams.deliver([*[snapshot] * 10 * SNAPSHOTS_KEPT, last])
    events = await caller
    assert events == [*[snapshot] * SNAPSHOTS_KEPT, last]
