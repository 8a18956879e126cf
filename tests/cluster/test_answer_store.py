"""Answers in the journal: one driver at a time, whatever the gateways and Redis do."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from easel.cluster.answer_store import JournaledAnswers
from easel.cluster.errors import JournalUnavailable
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_records import AnswerRecord, AnswerStatus
from easel.cluster.valkey_server import EmbeddedValkey
from tests.cluster.fakes import a_block, a_request

pytestmark = pytest.mark.asyncio

DRIVER_SECONDS = 3600.0  # leases run out when a test says so


def an_answer(name: str = "x", *, background: bool = True, fingerprint: str = "f") -> AnswerRecord:
    return AnswerRecord(name, "tenant", fingerprint, (f"{name}-0", f"{name}-1"), '{"n": 2}', background)


async def run_out(journal: Journal, name: str) -> None:
    """As if the driver had been silent for its lease's time."""
    if await journal._redis.hexists(journal.key(name, "answer"), "until"):
        await journal._redis.hset(journal.key(name, "answer"), "until", "0")
    if await journal._redis.zscore(f"{journal.settings.prefix}background", name) is not None:
        await journal._redis.zadd(f"{journal.settings.prefix}background", {name: 1})


@pytest_asyncio.fixture
async def stores(journal: Journal) -> AsyncIterator[list[JournaledAnswers]]:
    await journal._redis.flushall()
    yield [JournaledAnswers(journal, name, DRIVER_SECONDS) for name in ("a", "b")]


async def test_an_answer_is_read_by_any_gateway_with_its_requests(
    journal: Journal, stores: list[JournaledAnswers]
) -> None:
    assert await stores[0].claim(an_answer())
    await journal.admit(a_request("x-1"))
    await journal.append_block(a_block(0, request_id="x-1"), 1)
    found = await stores[1].read("x")
    assert found is not None
    assert (found.record, found.status, found.driver) == (an_answer(), AnswerStatus.IN_PROGRESS, "a")
    first, second = found.requests
    assert first is None
    assert second is not None
    assert second.blocks == (a_block(0, request_id="x-1"),)
    assert await stores[1].read("y") is None


async def test_a_driven_answer_is_nobody_elses_until_its_driver_is_silent(
    journal: Journal, stores: list[JournaledAnswers]
) -> None:
    a, b = stores
    assert [await a.claim(an_answer()), await a.claim(an_answer()), await b.claim(an_answer())] == [1, 1, 0]
    assert await b.orphans() == []
    await run_out(journal, "x")
    assert await b.orphans() == ["x"]
    assert await b.claim(an_answer())
    assert [await a.renew("x"), await b.renew("x")] == [False, True]
    await a.conclude("x", AnswerStatus.FAILED, "it was not mine any more")
    found = await a.read("x")
    assert found is not None
    assert (found.status, found.driver) == (AnswerStatus.IN_PROGRESS, "b")


@pytest.mark.parametrize("released", [False, True])
async def test_a_driver_that_was_stopped_and_superseded_can_do_nothing(
    journal: Journal, stores: list[JournaledAnswers], released: bool
) -> None:
    a, b = stores
    late = JournaledAnswers(journal, "a", DRIVER_SECONDS)
    for store in (a, late):
        await store.claim(an_answer())
    await run_out(journal, "x")
    await b.claim(an_answer())
    if released:
        await b.release("x")
    assert not await a.renew("x")
    await late.conclude("x", AnswerStatus.FAILED)
    found = await b.read("x")
    assert found is not None
    assert (found.status, found.driver) == (AnswerStatus.IN_PROGRESS, "" if released else "b")


async def test_whoever_claims_first_what_was_forgotten_keeps_it(
    journal: Journal, stores: list[JournaledAnswers]
) -> None:
    a, b = stores
    await a.claim(an_answer())
    await journal._redis.flushall()
    assert await b.claim(an_answer())
    assert [await a.renew("x"), await b.renew("x")] == [False, True]


async def test_a_released_answer_is_free_at_once(stores: list[JournaledAnswers]) -> None:
    a, b = stores
    await a.claim(an_answer())
    await a.release("x")
    assert await b.orphans() == ["x"]
    assert await b.claim(an_answer())
    assert await b.orphans() == []


@pytest.mark.parametrize("status", [AnswerStatus.COMPLETED, AnswerStatus.FAILED])
async def test_the_first_end_stays(stores: list[JournaledAnswers], status: AnswerStatus) -> None:
    a, b = stores
    await a.claim(an_answer())
    await a.conclude("x", status, "why")
    found = await b.read("x")
    assert found is not None
    assert (found.status, found.detail, found.driver) == (status, "why", "")
    assert [await b.claim(an_answer()), await b.cancel("x"), await a.renew("x")] == [False, False, False]
    assert await b.orphans() == []


async def test_a_driver_learns_at_its_renewal_that_its_answer_was_cancelled(
    stores: list[JournaledAnswers],
) -> None:
    a, b = stores
    await a.claim(an_answer())
    assert [await b.cancel("x"), await b.cancel("x"), await b.cancel("unknown")] == [True, False, False]
    assert not await a.renew("x")
    await a.conclude("x", AnswerStatus.COMPLETED)
    found = await b.read("x")
    assert found is not None
    assert found.status is AnswerStatus.CANCELLED


async def test_an_id_that_stands_for_another_body_cannot_be_claimed(stores: list[JournaledAnswers]) -> None:
    a, b = stores
    await a.claim(an_answer())
    assert not await a.claim(an_answer(fingerprint="other"))
    await a.release("x")
    assert not await b.claim(an_answer(fingerprint="other"))


async def test_a_forgotten_answer_is_restored_by_its_driver(
    journal: Journal, stores: list[JournaledAnswers]
) -> None:
    await stores[0].claim(an_answer())
    await journal._redis.flushall()
    assert await stores[0].renew("x")
    found = await stores[1].read("x")
    assert found is not None
    assert (found.record, found.driver) == (an_answer(), "a")
    await run_out(journal, "x")
    assert await stores[1].orphans() == ["x"]


async def test_an_answer_begun_while_the_journal_was_away_is_claimed_by_its_renewal() -> None:
    valkey = EmbeddedValkey()
    journal = Journal(JournalSettings(valkey.url, retry_seconds=0.0))
    store = JournaledAnswers(journal, "a", DRIVER_SECONDS)
    with pytest.raises(JournalUnavailable):
        await store.claim(an_answer())
    valkey.start()
    try:
        assert await store.renew("x")
        found = await store.read("x")
        assert found is not None
        assert found.driver == "a"
    finally:
        await journal.close()
        valkey.stop()


async def test_the_index_is_swept_of_what_has_gone(journal: Journal, stores: list[JournaledAnswers]) -> None:
    await stores[0].claim(an_answer())
    await run_out(journal, "x")
    await journal._redis.delete(journal.key("x", "answer"))
    assert await stores[1].orphans() == []
    assert await journal._redis.zcard(f"{journal.settings.prefix}background") == 0
