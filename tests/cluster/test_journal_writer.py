"""Write-behind: never in the way, in order, bounded."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from easel.cluster.journal_records import Admission, CommittedBlock, Record, Renewal, Written
from easel.cluster.journal_writer import JournalWriter
from tests.cluster.fakes import BLOCK, FakeJournal, a_block, a_request

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
        async def write(self, records: list[Record]) -> Written:
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


async def test_a_forgotten_request_is_offered_again_in_the_same_flush() -> None:
    offered: list[str] = []

    def offer_again(request_id: str) -> None:
        offered.append(request_id)
        for record in blocks(3):
            writer.offer(record)

    journal = FakeJournal(forgotten=lambda record: not offered)
    writer = JournalWriter(journal, lambda _: None, on_forgotten=offer_again)
    for record in blocks(3)[1:]:
        writer.offer(record)
    await writer.flush()
    assert offered == ["r"]
    assert journal.records == [*blocks(3)[1:], *blocks(3)]


async def test_renewals_do_not_pile_up_while_the_journal_is_away() -> None:
    journal = FakeJournal(away=True)
    writer = JournalWriter(journal, lambda _: None, buffer_records=10)
    writer.offer(blocks(1)[0])
    for _ in range(100):
        writer.offer(Renewal("r", 1))
        writer.offer(Renewal("s", 1))
        await writer.flush()
    journal.away = False
    await writer.flush()
    assert journal.records == [blocks(1)[0], Renewal("r", 1), Renewal("s", 1)]
    writer.offer(Renewal("r", 1))
    await writer.flush()
    assert journal.records[-1] == Renewal("r", 1)
    assert len(journal.records) == 4


async def test_long_prompts_are_bounded_by_their_tokens() -> None:
    journal = FakeJournal(away=True)
    writer = JournalWriter(journal, lambda _: None, buffer_records=4)
    long = Admission(replace(a_request(), prompt=(7,) * 700))
    for _ in range(3):
        writer.offer(long)
    assert (writer.buffered, writer.dropped) == (1, 2)
    for record in blocks(3):
        writer.offer(record)
    assert writer.buffered == 4
    assert 700 + 3 * BLOCK <= 4 * 256


async def test_long_prompts_are_spread_over_several_exchanges() -> None:
    journal = FakeJournal()
    writer = JournalWriter(journal, lambda _: None)
    for _ in range(6):
        writer.offer(Admission(replace(a_request(), prompt=(7,) * 100_000)))
    await writer.flush()
    assert (journal.exchanges, len(journal.records)) == (3, 6)


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


async def test_the_lag_is_the_age_of_the_oldest_record_that_is_not_written() -> None:
    now = 100.0
    journal = FakeJournal(away=True)
    writer = JournalWriter(journal, lambda _: None, clock=lambda: now)
    assert writer.lag_seconds == 0.0
    writer.offer(Renewal("r", 1))
    now = 102.0
    writer.offer(Renewal("s", 1))
    await writer.flush()
    assert (writer.buffered, writer.lag_seconds) == (2, 2.0)
    journal.away = False
    await writer.flush()
    assert (writer.buffered, writer.lag_seconds) == (0, 0.0)
