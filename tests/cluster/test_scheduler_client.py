"""A call that the scheduler's death swallowed is made again."""

import asyncio
from dataclasses import dataclass, field

import pytest

from easel.cluster.errors import SchedulerLost, Withdrawn
from easel.cluster.scheduler_client import SchedulerClient, watched
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import Placement

pytestmark = pytest.mark.asyncio

TICKET = AdmissionTicket("r", prompt_tokens=4, max_tokens=8)


@dataclass(slots=True)
class Method:
    """Like a method of an actor's handle."""

    answers: "list[asyncio.Future[object]]"

    def remote(self, *_: object) -> "asyncio.Future[object]":
        return self.answers.pop(0)


def told(value: object) -> "asyncio.Future[object]":
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    answer.set_result(value)
    return answer


@dataclass(slots=True)
class Actor:
    place: Method
    is_placing: Method = field(default_factory=lambda: Method([]))


async def test_a_call_that_is_known_is_waited_for() -> None:
    placement = Placement("r", "a", 1)
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    class Known(Method):
        def remote(self, *_: object) -> "asyncio.Future[object]":
            if len(self.answers) == 1:
                answer.set_result(placement)
            return super().remote()

    actor = Actor(Method([answer]), Known([told(True) for _ in range(3)]))
    assert await watched(actor, TICKET, pause_seconds=0.001) == placement
    assert actor.is_placing.answers == []


async def test_a_call_that_nobody_knows_is_lost() -> None:
    never: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    with pytest.raises(SchedulerLost):
        await watched(Actor(Method([never]), Method([told(False)])), TICKET, pause_seconds=0.001)


async def test_a_scheduler_that_does_not_say_counts_as_lost() -> None:
    never: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    silent: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    with pytest.raises(SchedulerLost):
        await watched(Actor(Method([never]), Method([silent])), TICKET, pause_seconds=0.001)


def failed(error: Exception) -> "asyncio.Future[object]":
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    answer.set_exception(error)
    return answer


def client_of(actor: Actor) -> SchedulerClient:
    client = SchedulerClient()
    client._actor = actor  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    return client


async def test_a_call_that_the_end_of_an_earlier_course_withdrew_is_made_again() -> None:
    placement = Placement("r", "a", 1)
    actor = Actor(Method([failed(Withdrawn("r")), told(placement)]))
    assert await client_of(actor).place(TICKET) == placement


async def test_two_who_want_the_same_request_do_not_fight_for_ever() -> None:
    actor = Actor(Method([failed(Withdrawn("r")) for _ in range(9)]))
    with pytest.raises(Withdrawn):
        await client_of(actor).place(TICKET)
    assert len(actor.place.answers) == 5
