"""The scheduler as an actor, without Ray: waiting, losses and restarts."""

import asyncio
from dataclasses import replace

import pytest

from easel.cluster.errors import NoReplica, Withdrawn
from easel.scheduler.errors import Draining, QueueFull
from tests.cluster.scheduler_world import World, a_digest, a_ticket, settle

pytestmark = pytest.mark.asyncio


async def test_a_request_waits_until_a_replica_reports() -> None:
    world = World()
    placing = asyncio.ensure_future(world.actor.place(a_ticket("r")))
    await settle()
    assert not placing.done()
    await world.actor.digest(a_digest("a", 1))
    assert (await placing).replica_id == "a"


async def test_a_request_waits_for_room_and_gets_it_when_another_ends() -> None:
    world = World()
    await world.actor.digest(a_digest("a", 1))
    await world.actor.place(a_ticket("first"))
    second = asyncio.ensure_future(world.actor.place(a_ticket("second")))
    await settle()
    assert not second.done()
    await world.actor.end("first", 8)
    assert (await second).replica_id == "a"


async def test_too_many_waiting_requests_are_refused() -> None:
    world = World()
    waiting = [asyncio.ensure_future(world.actor.place(a_ticket(name))) for name in "ab"]
    await settle()
    with pytest.raises(QueueFull) as caught:
        await world.actor.place(a_ticket("c"))
    assert caught.value.limit == 2
    for name in "ab":
        await world.actor.end(name, 0)
    await asyncio.wait(waiting)
    assert all(isinstance(task.exception(), Withdrawn) for task in waiting)


async def test_without_any_replica_a_request_is_refused_in_time() -> None:
    world = World(no_replica_seconds=0.01)
    with pytest.raises(NoReplica):
        await world.actor.place(a_ticket("r"))
    assert (await world.actor.status())["waiting"] == 0


async def test_who_waited_long_for_room_is_not_refused_the_moment_the_last_replica_goes() -> None:
    world = World(no_replica_seconds=0.4)
    await world.actor.digest(a_digest("a", 1))
    await world.actor.place(a_ticket("first"))
    second = asyncio.ensure_future(world.actor.place(a_ticket("second")))
    await settle()
    await world.actor.digest(a_digest("a", 2, active=("first",)))
    await world.actor.report_lost("a")
    await asyncio.wait({second}, timeout=0.5)
    assert not second.done()
    await world.actor.digest(a_digest("b", 1))
    assert (await second).replica_id == "b"


async def test_only_calls_that_are_under_way_are_known() -> None:
    world = World()
    placing = asyncio.ensure_future(world.actor.place(a_ticket("r")))
    await settle()
    assert await world.actor.is_placing("r")
    assert not await World().actor.is_placing("r")
    await world.actor.digest(a_digest("a", 1))
    await placing
    assert not await world.actor.is_placing("r")


async def test_a_reported_loss_reaches_those_who_wait_for_it_and_frees_nothing_twice() -> None:
    world = World()
    await world.actor.digest(a_digest("a", 1))
    known, _ = await world.actor.losses(-1)
    waiting = asyncio.ensure_future(world.actor.losses(known))
    await settle()
    await world.actor.report_lost("a")
    await world.actor.report_lost("a")
    assert await waiting == (known + 1, ["a"])
    assert (await world.actor.status())["replicas"] == []


async def test_a_count_from_before_a_restart_starts_anew() -> None:
    world = World()
    assert await world.actor.losses(17) == (0, [])


async def test_a_silent_replica_is_lost_and_known_again_when_it_speaks() -> None:
    world = World()
    await world.actor.digest(a_digest("a", 1))
    known, _ = await world.actor.losses(-1)
    world.now += 10.0
    assert await world.actor.losses(known) == (1, ["a"])
    await world.actor.digest(a_digest("a", 2))
    assert (await world.actor.status())["replicas"] == ["a"]


async def test_a_repeated_call_for_the_same_request_supersedes_the_first() -> None:
    world = World()
    first = asyncio.ensure_future(world.actor.place(a_ticket("r")))
    await settle()
    second = asyncio.ensure_future(world.actor.place(a_ticket("r")))
    await settle()
    await world.actor.digest(a_digest("a", 1))
    assert (await second).replica_id == "a"
    assert isinstance(first.exception(), Withdrawn)


async def test_an_excluded_replica_is_not_chosen() -> None:
    world = World()
    for name in "ab":
        await world.actor.digest(a_digest(name, 1))
    placement = await world.actor.place(a_ticket("r", excluded=frozenset({"a"})))
    assert placement.replica_id == "b"


async def test_a_new_scheduler_adopts_what_digests_say_is_running() -> None:
    world = World()
    await world.actor.digest(a_digest("a", 41, active=("older",)))
    placing = asyncio.ensure_future(world.actor.place(a_ticket("r")))
    await settle()
    assert not placing.done()
    await world.actor.digest(a_digest("a", 42))
    assert (await placing).replica_id == "a"


async def test_a_replica_is_told_a_policy() -> None:
    world = World()
    assert (await world.actor.digest(a_digest("a", 1))).policy is None
    for sequence in range(2, 1000):
        await asyncio.sleep(0.001)
        policy = (await world.actor.digest(a_digest("a", sequence))).policy
        if policy is not None:
            assert policy.epoch > 0
            return
    raise AssertionError("no policy came")


async def test_a_replica_that_is_to_go_is_told_so_and_gets_nothing_more() -> None:
    world = World(stopping=True)
    for name in "ab":
        await world.actor.digest(a_digest(name, 1, slots=4))
    await world.actor.report_leaving("a")
    placements = [await world.actor.place(a_ticket(name)) for name in "xyz"]
    assert {placement.replica_id for placement in placements} == {"b"}
    assert (await world.actor.digest(a_digest("a", 2, slots=4))).drain
    assert not (await world.actor.digest(a_digest("b", 2, slots=4, active=tuple("xyz")))).drain


@pytest.mark.parametrize("asked_to_go", [True, False])
async def test_a_replica_that_was_asked_to_go_is_no_loss_but_gateways_are_told(asked_to_go: bool) -> None:
    world = World()
    await world.actor.digest(a_digest("a", 1))
    if asked_to_go:
        await world.actor.drain("a")
    await world.actor.report_lost("a")
    assert (await world.actor.status())["lost_replicas"] == (0 if asked_to_go else 1)
    assert await world.actor.losses(0) == (1, ["a"])
    kinds = [fault.kind.value for fault in (await world.actor.watch()).faults]
    assert ("replica_left" if asked_to_go else "replica_lost") in kinds


async def test_a_replica_that_could_not_be_reached_is_left_alone_for_a_while() -> None:
    world = World()
    for name in "ab":
        await world.actor.digest(a_digest(name, 1, slots=1))
    await world.actor.report_leaving("a")
    assert (await world.actor.place(a_ticket("x"))).replica_id == "b"
    assert not (await world.actor.digest(a_digest("a", 2, slots=1))).drain
    world.now += 4.0
    for name in "ab":
        await world.actor.digest(a_digest(name, 3, slots=1, active=("x",) if name == "b" else ()))
    assert (await world.actor.place(a_ticket("y"))).replica_id == "a"


async def test_a_cluster_that_stops_refuses_newcomers_and_lets_the_others_go_on() -> None:
    world = World()
    await world.actor.digest(a_digest("a", 1, slots=4))
    await world.actor.place(a_ticket("old"))
    await world.actor.close_admission()
    with pytest.raises(Draining):
        await world.actor.place(a_ticket("new"))
    assert (await world.actor.place(replace(a_ticket("old"), admitted=True))).replica_id == "a"
    assert await world.actor.unfinished() == await world.actor.unfinished("a") == 1


async def test_why_replicas_did_not_come_up_is_kept_once() -> None:
    world = World()
    for reason in ("tensor 'a' is missing", "too large", "tensor 'a' is missing"):
        await world.actor.report_load_failure(reason)
    assert await world.actor.load_failures() == ["tensor 'a' is missing", "too large"]
    await world.actor.close()


async def test_how_far_replicas_are_with_loading_is_known_by_replica() -> None:
    world = World()
    await world.actor.loading("one", 3, 57)
    await world.actor.loading("two", 1, 57)
    await world.actor.loading("one", 57, 57)
    assert await world.actor.loads() == {"one": (57, 57), "two": (1, 57)}
    await world.actor.close()
