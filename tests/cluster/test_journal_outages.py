"""What a journal that is full, hangs, or is restarted costs: nothing that was offered below the bound."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import psutil
import pytest
import pytest_asyncio

from easel.cluster.errors import JournalUnavailable
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_records import Admission, CommittedBlock, Finished, Record, Renewal
from easel.cluster.journal_writer import JournalWriter
from easel.cluster.valkey_server import EmbeddedValkey
from easel.scheduler.request import FinishReason
from tests.cluster.fakes import a_block, a_request

pytestmark = pytest.mark.asyncio

LONG = (7,) * 2000  # tokens; four kilobytes


@pytest_asyncio.fixture
async def small(valkey: EmbeddedValkey) -> AsyncIterator[Journal]:
    """A connection to a Valkey with room for half a megabyte more."""
    connection = Journal(JournalSettings(valkey.url, retry_seconds=0.0))
    await connection._redis.flushall()
    await connection.read("r")  # the scripts are there
    used = (await connection._redis.info("memory"))["used_memory"]
    before = await connection._redis.config_get("maxmemory*")
    await connection._redis.config_set("maxmemory", used + 2**19)
    yield connection
    for name in ("maxmemory", "maxmemory-policy"):
        await connection._redis.config_set(name, str(before[name]))
    await connection._redis.flushall()
    await connection.close()


def server_of(valkey: EmbeddedValkey) -> psutil.Process:
    return psutil.Process(int((valkey.folder / "valkey.pid").read_text()))


async def test_a_full_redis_that_drops_nothing_degrades_the_journal_and_loses_nothing(small: Journal) -> None:
    await small._redis.config_set("maxmemory-policy", "noeviction")
    writer = JournalWriter(small, lambda _: None)
    names = [f"r{index}" for index in range(200)]
    for name in names:
        writer.offer(Admission(replace(a_request(name), prompt=LONG)))
    await writer.flush()
    assert writer.degraded
    assert await small.read("r0") is not None  # reading goes on
    await small._redis.config_set("maxmemory", 0)
    await writer.flush()
    assert (writer.degraded, writer.buffered, writer.dropped) == (False, 0, 0)
    assert all(await small.read_all(names))


async def test_the_embedded_journal_drops_what_has_ended_first(small: Journal) -> None:
    epoch = await small.acquire_lease("running", "a", 0)
    await small.admit(a_request("running"))
    await small.append_block(a_block(0, request_id="running"), epoch)
    for index in range(300):
        name = f"ended{index}"
        block = replace(a_block(0, request_id=name, last=True), tokens=LONG)
        await small.write([CommittedBlock(block, 1), Finished(name, FinishReason.LENGTH, 1)])
    assert (await small._redis.info("stats"))["evicted_keys"] > 50
    found = await small.read("running")
    assert found is not None
    assert (found.lease_epoch, len(found.blocks)) == (epoch, 1)


async def test_nothing_is_kept_for_ever(valkey: EmbeddedValkey) -> None:
    journal = Journal(JournalSettings(valkey.url, prefix="live:", active_seconds=500, terminal_seconds=5))
    epoch = await journal.acquire_lease("r", "a", 0)
    await journal.append_block(a_block(0), epoch)
    await journal.admit(a_request())
    keys = [journal.key("r", name) for name in ("request", "blocks")]
    assert [400 < await journal._redis.ttl(key) <= 500 for key in keys] == [True, True]
    await journal.finish("r", FinishReason.CANCELLED, epoch)
    await journal.append_block(a_block(1), epoch)
    await journal.admit(a_request())
    assert [0 < await journal._redis.ttl(key) <= 5 for key in keys] == [True, True]
    await journal.acquire_lease("r", "b", 0)
    assert [400 < await journal._redis.ttl(key) <= 500 for key in keys] == [True, True]
    await journal.close()


async def test_a_journal_that_hangs_is_given_up_quickly_and_gets_all_when_it_goes_on(
    valkey: EmbeddedValkey,
) -> None:
    settings = JournalSettings(valkey.url, prefix="hang:", timeout_seconds=0.05, retry_seconds=0.0)
    journal = Journal(settings)
    writer = JournalWriter(journal, lambda _: None)
    epoch = await journal.acquire_lease("r", "a", 1000)
    server_of(valkey).suspend()
    try:
        with pytest.raises(JournalUnavailable):
            await journal.acquire_lease("r", "b", 2000)
        for index in range(3):
            writer.offer(CommittedBlock(a_block(index, last=index == 2), 2001))
            await writer.flush()
        assert (writer.degraded, writer.buffered) == (True, 3)
    finally:
        server_of(valkey).resume()
    patient = Journal(replace(settings, timeout_seconds=5.0))
    writer.offer(Finished("r", FinishReason.LENGTH, 2001))
    async with asyncio.timeout(10):
        while writer.buffered:
            await writer.flush()
    found = await patient.read("r")
    assert found is not None
    assert (len(found.blocks), found.finish, found.lease_epoch) == (3, FinishReason.LENGTH, 2001)
    assert epoch < 2001
    await journal.close()
    await patient.close()


async def test_an_owner_tells_a_journal_that_has_forgotten_everything_again(valkey: EmbeddedValkey) -> None:
    """As a worker replica does: the admission, then every block it knows."""
    journal = Journal(JournalSettings(valkey.url, prefix="again:", retry_seconds=0.0))

    def offer_again(request_id: str) -> None:
        known: list[Record] = [CommittedBlock(a_block(index), 1001) for index in range(3)]
        for record in [Admission(a_request(request_id)), *known]:
            writer.offer(record)

    writer = JournalWriter(journal, lambda _: None, on_forgotten=offer_again)
    await journal.acquire_lease("r", "a", 1000)
    for index in range(3):
        writer.offer(CommittedBlock(a_block(index), 1001))
    await writer.flush()
    await journal._redis.flushall()
    await journal._redis.script_flush()
    writer.offer(Renewal("r", 1001))
    await writer.flush()
    found = await journal.read("r")
    assert found is not None
    assert (found.request, len(found.blocks), found.lease_epoch) == (a_request(), 3, 1001)
    await journal.close()


@pytest.mark.parametrize("connected", [False, True])
async def test_an_exchange_that_is_cancelled_is_no_outage_however_far_it_is(
    valkey: EmbeddedValkey, connected: bool
) -> None:
    """Otherwise a loop that outlives outages goes on, and whoever waits for its end waits for ever."""
    turns = 0  # of the event loop, before it is cancelled
    while True:
        journal = Journal(JournalSettings(valkey.url, prefix="cancelled:"))
        if connected:
            await journal.read("r")
        reading = asyncio.create_task(journal.read("r"))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = reading.done()
        reading.cancel()
        (outcome,) = await asyncio.gather(reading, return_exceptions=True)
        await journal.close()
        if finished:
            break
        assert isinstance(outcome, asyncio.CancelledError)
        turns += 1
    assert turns > 3
