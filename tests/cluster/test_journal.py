"""The journal on a real Valkey: fencing, idempotence, order, and life while it is away."""

import asyncio
from dataclasses import replace

import pytest

from easel.cluster.errors import JournalUnavailable, StaleLease
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_records import Admission, CommittedBlock, Finished, Record, Renewal, Written
from easel.cluster.journal_writer import JournalWriter
from easel.cluster.valkey_server import EmbeddedValkey
from easel.scheduler.request import (
    CommitRule,
    DiffusionParams,
    FinishReason,
    Request,
    SamplingParams,
    Schedule,
)
from tests.cluster.fakes import a_block, a_request

pytestmark = pytest.mark.asyncio

FULL = Request(
    "full",
    prompt=(1, 2, 3),
    sampling=SamplingParams(max_tokens=9, temperature=0.7, top_k=5, top_p=0.9, seed=2**63 - 1),
    diffusion=DiffusionParams(4, CommitRule.ENTROPY_BOUND, 0.5, 0.2, Schedule.COSINE, stop_entropy=0.1),
    committed=(4, 5),
    tenant="t",
    priority=3,
    snapshots=True,
)


async def test_a_request_is_read_back_as_it_was_written(journal: Journal) -> None:
    await journal.admit(FULL)
    epoch = await journal.acquire_lease("full", "a", 0)
    blocks = (a_block(0, request_id="full"), a_block(1, request_id="full", last=True))
    for block in blocks:
        await journal.append_block(block, epoch)
    await journal.finish("full", FinishReason.LENGTH, epoch)
    found = await journal.read("full")
    assert found is not None
    assert found.request == replace(FULL, committed=())  # the blocks say what is committed
    assert found.blocks == blocks
    assert (found.finish, found.owner, found.lease_epoch) == (FinishReason.LENGTH, "", epoch)


async def test_an_unknown_request_reads_as_none(journal: Journal) -> None:
    assert await journal.read("nobody") is None


async def test_epochs_grow_with_every_owner_and_start_above_the_floor(journal: Journal) -> None:
    epochs = [await journal.acquire_lease("r", owner, floor=10**12) for owner in "aba"]
    assert epochs == [10**12 + 1, 10**12 + 2, 10**12 + 3]


async def test_an_epoch_is_above_what_the_journal_knows_when_the_clock_went_back(journal: Journal) -> None:
    before = await journal.acquire_lease("r", "a", floor=10**12)
    assert await journal.acquire_lease("r", "b", floor=10**12 - 3_600_000) == before + 1


async def test_an_epoch_outlives_its_lease() -> None:
    valkey = EmbeddedValkey()
    journal = Journal(JournalSettings(valkey.url, lease_seconds=0.001))
    valkey.start()
    try:
        old = await journal.acquire_lease("r", "a", 1000)
        while (found := await journal.read("r")) is None or found.owner:
            pass
        new = await journal.acquire_lease("r", "b", 10)
        assert (found.lease_epoch, new) == (old, old + 1)
        with pytest.raises(StaleLease):
            await journal.renew("r", old)
    finally:
        await journal.close()
        valkey.stop()


async def test_an_acquisition_that_is_run_again_gives_the_same_epoch(journal: Journal) -> None:
    assert {await journal.acquire_lease("r", "a", 1000) for _ in range(3)} == {1001}


async def test_an_acquisition_that_comes_late_fences_nobody_off(journal: Journal) -> None:
    """Its caller gave up on it, and let the owner go on with the epoch it would have come to."""
    await journal.append_block(a_block(0), 1001)
    assert await journal.acquire_lease("r", "a", 1000) == 1001
    await journal.append_block(a_block(1), 1001)


async def test_a_stale_owners_writes_are_all_refused(journal: Journal) -> None:
    old = await journal.acquire_lease("r", "a", 0)
    new = await journal.acquire_lease("r", "b", 0)
    await journal.append_block(a_block(0), new)
    with pytest.raises(StaleLease):
        await journal.append_block(a_block(1), old)
    with pytest.raises(StaleLease):
        await journal.finish("r", FinishReason.CANCELLED, old)
    with pytest.raises(StaleLease):
        await journal.renew("r", old)
    found = await journal.read("r")
    assert found is not None
    assert (found.blocks, found.finish, found.owner) == ((a_block(0),), None, "b")


async def test_an_epoch_granted_while_the_journal_was_away_is_adopted(journal: Journal) -> None:
    epoch = await journal.acquire_lease("r", "a", 0)
    await journal.append_block(a_block(0), epoch + 5)
    with pytest.raises(StaleLease):
        await journal.append_block(a_block(1), epoch)


async def test_a_lease_the_journal_does_not_know_is_forgotten_until_the_request_is_admitted_again(
    journal: Journal,
) -> None:
    records: list[Record] = [
        Renewal("r", 7),
        CommittedBlock(a_block(0), 7),
        Finished("r", FinishReason.STOP, 7),
    ]
    assert await journal.write(records) == Written(forgotten=tuple(records))
    assert await journal.write(records) == Written(forgotten=tuple(records))
    assert await journal.write([Admission(a_request()), *records]) == Written()


async def test_an_owner_that_cannot_fill_a_gap_is_told_of_it_only_once(journal: Journal) -> None:
    epoch = await journal.acquire_lease("r", "a", 0)
    records: list[Record] = [CommittedBlock(a_block(index), epoch) for index in (0, 2, 3)]
    assert await journal.write(records) == Written(forgotten=tuple(records[1:]))
    assert await journal.write([Admission(a_request()), *records]) == Written()


async def test_a_cancelled_request_can_be_taken_up_again(journal: Journal) -> None:
    old = await journal.acquire_lease("r", "a", 0)
    await journal.append_block(a_block(0), old)
    await journal.finish("r", FinishReason.CANCELLED, old)
    cancelled = await journal.read("r")
    new = await journal.acquire_lease("r", "b", 0)
    with pytest.raises(StaleLease):
        await journal.finish("r", FinishReason.CANCELLED, old)
    going_on = await journal.read("r")
    await journal.append_block(a_block(1, last=True), new)
    await journal.finish("r", FinishReason.LENGTH, new)
    await journal.finish("r", FinishReason.CANCELLED, new)
    ended = await journal.read("r")
    assert cancelled is not None
    assert going_on is not None
    assert ended is not None
    assert cancelled.finish is FinishReason.CANCELLED
    assert (going_on.finish, going_on.blocks) == (None, (a_block(0),))
    assert (ended.finish, ended.blocks) == (FinishReason.LENGTH, (a_block(0), a_block(1, last=True)))


async def test_an_end_without_the_last_block_is_none(journal: Journal) -> None:
    epoch = await journal.acquire_lease("r", "a", 0)
    await journal.append_block(a_block(0), epoch)
    await journal.finish("r", FinishReason.LENGTH, epoch)
    found = await journal.read("r")
    assert found is not None
    assert (found.blocks, found.finish) == ((a_block(0),), None)


async def test_a_request_that_is_handed_over_has_no_end(journal: Journal) -> None:
    epoch = await journal.acquire_lease("r", "a", 0)
    await journal.append_block(replace(a_block(0), finish=FinishReason.HANDED_OVER), epoch)
    await journal.finish("r", FinishReason.HANDED_OVER, epoch)
    found = await journal.read("r")
    assert found is not None
    assert (found.blocks, found.finish, found.owner) == ((a_block(0),), None, "")


async def test_a_block_written_twice_stays_as_it_was_first(journal: Journal) -> None:
    epoch = await journal.acquire_lease("r", "a", 0)
    await journal.append_block(a_block(0), epoch)
    await journal.append_block(replace(a_block(0), tokens=(99,)), epoch)
    found = await journal.read("r")
    assert found is not None
    assert found.blocks == (a_block(0),)


async def test_blocks_after_a_gap_are_not_read(journal: Journal) -> None:
    epoch = await journal.acquire_lease("r", "a", 0)
    for index in (0, 2):
        await journal.append_block(a_block(index), epoch)
    found = await journal.read("r")
    assert found is not None
    assert found.blocks == (a_block(0),)


async def test_an_ended_request_is_forgotten_in_time_even_if_its_admission_comes_late(
    valkey: EmbeddedValkey,
) -> None:
    journal = Journal(JournalSettings(valkey.url, prefix="brief:", terminal_seconds=0.05, lease_seconds=0.05))
    epoch = await journal.acquire_lease("r", "a", 0)
    await journal.append_block(a_block(0), epoch)
    await journal.finish("r", FinishReason.LENGTH, epoch)
    await journal.admit(a_request())
    async with asyncio.timeout(5):
        while await journal.read("r") is not None:
            pass
    assert await journal.read("r") is None
    await journal.close()


async def test_one_exchange_writes_many_records_and_names_the_stale_ones(journal: Journal) -> None:
    old = await journal.acquire_lease("r", "a", 0)
    new = await journal.acquire_lease("r", "b", 0)
    stale = CommittedBlock(a_block(1), old)
    records: list[Record] = [
        Admission(a_request()),
        CommittedBlock(a_block(0), new),
        stale,
        Renewal("r", new),
    ]
    assert await journal.write(records) == Written(stale=(stale,))


async def test_several_requests_are_read_in_one_exchange(journal: Journal) -> None:
    for name in ("x", "y"):
        await journal.admit(a_request(name))
    found = await journal.read_all(["y", "nobody", "x"])
    assert [one.request.request_id if one and one.request else None for one in found] == ["y", None, "x"]


async def test_a_journal_that_has_lost_its_scripts_is_given_them_again(journal: Journal) -> None:
    await journal.admit(a_request())
    await journal._redis.script_flush()
    assert await journal.read("r") is not None


async def test_an_absent_journal_fails_at_once_and_then_is_left_alone() -> None:
    now = 0.0
    journal = Journal(JournalSettings("unix:///nowhere/valkey.sock", retry_seconds=2.0), clock=lambda: now)
    with pytest.raises(JournalUnavailable, match="nowhere"):
        await journal.ping()
    with pytest.raises(JournalUnavailable, match="a moment ago"):
        await journal.ping()
    now = 3.0
    with pytest.raises(JournalUnavailable, match="nowhere"):
        await journal.ping()
    await journal.close()


async def test_what_was_buffered_while_valkey_was_away_is_written_on_its_return() -> None:
    valkey = EmbeddedValkey()
    journal = Journal(JournalSettings(valkey.url, retry_seconds=0.0))
    writer = JournalWriter(journal, lambda _: None)
    writer.offer(Admission(a_request()))
    writer.offer(CommittedBlock(a_block(0), 1))
    await writer.flush()
    assert writer.degraded
    assert writer.buffered == 2
    valkey.start()
    try:
        writer.offer(CommittedBlock(a_block(1, last=True), 1))
        writer.offer(Finished("r", FinishReason.LENGTH, 1))
        await writer.flush()
        found = await journal.read("r")
    finally:
        await journal.close()
        valkey.stop()
    assert not writer.degraded
    assert writer.buffered == 0
    assert found is not None
    assert (found.request, found.finish) == (a_request(), FinishReason.LENGTH)
    assert found.blocks == (a_block(0), a_block(1, last=True))
