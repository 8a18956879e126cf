"""Write-behind: never in the way, in order, bounded."""

import asyncio
from contextlib import suppress

import pytest

from easel.cluster.journal_records import CommittedBlock, Record
from easel.cluster.journal_writer import JournalWriter
from tests.cluster.fakes import FakeJournal, a_block

pytestmark = pytest.mark.asyncio


def blocks(count: int) -> list[Record]:
    return [CommittedBlock(a_block(index), 1) for index in range(count)]


async def test_records_are_written_in_the_order_they_were_offered() -> None:
    journal = FakeJournal()
    writer = JournalWriter(journal, lambda _: None)
    for record in blocks(1200):
        writer.offer(record)
    await writer.flush()
    assert journal.records == blocks(1200)
    assert journal.exchanges == 3
    assert writer.buffered == 0


async def test_a_full_buffer_loses_the_oldest_and_counts_them() -> None:
    journal = FakeJournal(away=True)
    writer = JournalWriter(journal, lambda _: None, buffer_records=3)
    for record in blocks(5):
        writer.offer(record)
    await writer.flush()
    assert (writer.buffered, writer.dropped, writer.degraded) == (3, 2, True)
    journal.away = False
    await writer.flush()
    assert journal.records == blocks(5)[2:]
    assert not writer.degraded


async def test_records_lost_during_an_exchange_are_not_counted_off_twice() -> None:
    class SlowJournal(FakeJournal):
        async def write(self, records: list[Record]) -> list[Record]:
            if not self.records:
                for record in blocks(5)[3:]:
                    writer.offer(record)
            return await super().write(records)

    journal = SlowJournal()
    writer = JournalWriter(journal, lambda _: None, buffer_records=3)
    for record in blocks(3):
        writer.offer(record)
    await writer.flush()
    assert journal.records == blocks(5)
    assert writer.buffered == 0


async def test_stale_records_are_reported_to_their_owner() -> None:
    stale: list[Record] = []
    journal = FakeJournal(stale=lambda record: record == blocks(2)[1])
    writer = JournalWriter(journal, stale.append)
    for record in blocks(2):
        writer.offer(record)
    await writer.flush()
    assert stale == blocks(2)[1:]
    assert journal.records == blocks(1)


async def test_what_is_buffered_is_flushed_when_the_writer_is_stopped() -> None:
    journal = FakeJournal()
    writer = JournalWriter(journal, lambda _: None, flush_seconds=3600)
    running = asyncio.ensure_future(writer.run())
    await asyncio.sleep(0)
    for record in blocks(2):
        writer.offer(record)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert journal.records == blocks(2)
