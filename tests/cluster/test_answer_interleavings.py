"""Whatever gateways and Redis do, an answer has one driver at a time and is lost by nobody."""

import asyncio
from collections.abc import Awaitable
from typing import ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from easel.cluster.answer_store import JournaledAnswers
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_records import AnswerStatus
from easel.cluster.valkey_server import EmbeddedValkey
from tests.cluster.test_answer_store import DRIVER_SECONDS, an_answer, run_out

Reply = TypeVar("Reply")

GATEWAYS = ("a", "b", "c")
ANSWERS = ("x",)  # more would only make them meet more rarely


class Gateways(RuleBasedStateMachine):
    """Three gateways that claim, renew, leave and die, and a Redis that may forget everything."""

    url: ClassVar[str]  # of the Valkey

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.journal = Journal(JournalSettings(self.url, timeout_seconds=10.0))
        self.stores = {name: JournaledAnswers(self.journal, name, DRIVER_SECONDS) for name in GATEWAYS}
        self.driver: dict[str, str] = {}  # of the answers somebody may rightly believe to drive
        self.ended: dict[str, AnswerStatus] = {}
        self.there: set[str] = set()
        self.deaths = 0
        self.run(self.journal._redis.flushall())

    def run(self, work: Awaitable[Reply]) -> Reply:
        return self.loop.run_until_complete(work)

    @rule(gateway=st.sampled_from(GATEWAYS), name=st.sampled_from(ANSWERS))
    def claim(self, gateway: str, name: str) -> None:
        claimed = self.run(self.stores[gateway].claim(an_answer(name)))
        assert claimed == (name not in self.ended and self.driver.get(name, gateway) == gateway)
        self.there.add(name)
        if claimed:
            self.driver[name] = gateway

    @rule(gateway=st.sampled_from(GATEWAYS), name=st.sampled_from(ANSWERS))
    def renew(self, gateway: str, name: str) -> None:
        renewed = self.run(self.stores[gateway].renew(name))
        assert not (renewed and name in self.ended)
        if not renewed:
            assert self.driver.get(name) != gateway or name in self.ended
        else:
            assert self.driver.get(name, gateway) == gateway
            self.driver[name] = gateway
            self.there.add(name)

    @rule(
        gateway=st.sampled_from(GATEWAYS),
        name=st.sampled_from(ANSWERS),
        how=st.sampled_from(["release", "completed", "failed", "cancel"]),
    )
    def leave(self, gateway: str, name: str, how: str) -> None:
        store = self.stores[gateway]
        if how == "cancel":
            if self.run(store.cancel(name)):
                self.ended[name] = AnswerStatus.CANCELLED
            return
        mine = name in store._driven
        self.run(store.release(name) if how == "release" else store.conclude(name, AnswerStatus(how)))
        if mine and self.driver.get(name, gateway) == gateway and name not in self.ended:
            self.driver.pop(name, None)
            if how != "release":
                self.find_end(name)

    def find_end(self, name: str) -> None:
        """One that lost the answer while nobody else had it may still have ended it."""
        found = self.run(self.stores["a"].read(name))
        if found is not None and found.status is not AnswerStatus.IN_PROGRESS:
            self.ended[name] = found.status

    @rule(name=st.sampled_from(ANSWERS), gateway=st.sampled_from(GATEWAYS), dies=st.booleans())
    def a_driver_is_silent(self, name: str, gateway: str, dies: bool) -> None:
        """For so long that its lease runs out; or for ever."""
        if dies:
            self.deaths += 1
            self.stores[gateway] = JournaledAnswers(self.journal, f"{gateway}{self.deaths}", DRIVER_SECONDS)
            silent = [name for name, driver in self.driver.items() if driver == gateway]
        else:
            silent = [name]
        for one in silent:
            self.run(run_out(self.journal, one))
            self.driver.pop(one, None)

    @rule(often=st.integers(0, 3))
    def redis_forgets(self, often: int) -> None:
        if often == 0:
            self.run(self.journal._redis.flushall())
            self.driver.clear()
            self.ended.clear()
            self.there.clear()

    @invariant()
    def what_is_read_is_what_happened(self) -> None:
        for name in ANSWERS:
            found = self.run(self.stores["b"].read(name))
            if found is None:
                assert name not in self.ended
            elif name not in self.ended:
                assert found.status is AnswerStatus.IN_PROGRESS
                assert found.driver.rstrip("0123456789") == self.driver.get(name, "")
            else:
                assert found.status is self.ended[name]

    @invariant()
    def orphans_are_those_that_nobody_drives(self) -> None:
        for name in self.run(self.stores["c"].orphans()):
            assert name not in self.ended
            assert name not in self.driver

    def teardown(self) -> None:
        try:
            for name in ANSWERS:
                self.run(run_out(self.journal, name))
            self.run(self.nothing_is_lost())
        finally:
            self.run(self.journal.close())
            self.loop.close()

    async def nothing_is_lost(self) -> None:
        found = {name for name in ANSWERS if await self.stores["a"].read(name) and name not in self.ended}
        assert set(await self.stores["a"].orphans()) == found
        for key in await self.journal._redis.keys("*"):
            assert await self.journal._redis.pttl(key) > 0


def test_an_answer_has_one_driver_at_a_time(valkey: EmbeddedValkey) -> None:
    Gateways.url = valkey.url
    run_state_machine_as_test(  # pyright: ignore[reportUnknownVariableType]
        Gateways,
        settings=settings(
            max_examples=30,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
