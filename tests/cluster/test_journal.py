"""The journal on a real Valkey: fencing, idempotence, order, and life while it is away."""

import asyncio
from dataclasses import replace

import pytest

from easel.cluster.errors import JournalUnavailable, StaleLease
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_records import Admission, CommittedBlock, Finished, Record, Renewal
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
    assert found.request == FULL
    assert found.blocks == blocks
    assert (found.finish, found.owner, found.lease_epoch) == (FinishReason.LENGTH, "a", epoch)


async def test_an_unknown_request_reads_as_none(journal: Journal) -> None:
    assert await journal.read("nobody") is None


async def test_epochs_grow_with_every_owner_and_start_above_the_floor(journal: Journal) -> None:
    epochs = [await journal.acquire_lease("r", owner, floor=10**12) for owner in "aba"]
    assert epochs == [10**12 + 1, 10**12 + 2, 10**12 + 3]


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
    assert await journal.write(records) == [stale]


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


async def test_a_password_is_not_shown() -> None:
    journal = Journal(JournalSettings("redis://user:secret@127.0.0.1:1/0"))
    with pytest.raises(JournalUnavailable) as caught:
        await journal.ping()
    assert "secret" not in str(caught.value)
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
