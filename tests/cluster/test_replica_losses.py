"""A stream learns that its replica is gone, whoever knows it."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest

from easel.cluster.errors import ReplicaLost
from easel.cluster.replica_losses import ReplicaLosses

pytestmark = pytest.mark.asyncio


@dataclass(slots=True)
class World:
    """A scheduler that knows of no loss, and a clock."""

    now: float = 0.0

    def watched(self) -> ReplicaLosses:
        return ReplicaLosses(self.losses, self.known, lambda: self.now)

    async def losses(self, known: int) -> tuple[int, list[str]]:
        return known, []

    async def known(self) -> list[str]:
        return []


async def silent() -> AsyncGenerator[int, None]:
    await asyncio.Event().wait()
    yield 0


async def guarded(losses: ReplicaLosses) -> asyncio.Task[list[int]]:
    async def read() -> list[int]:
        return [item async for item in losses.guard("a", silent())]

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    return task


async def test_a_replica_nobody_has_heard_of_for_long_is_given_up() -> None:
    world = World()
    losses = world.watched()
    stream = await guarded(losses)
    for world.now in (0.0, 5.0, 9.0):
        losses.compare([])
    with pytest.raises(ReplicaLost):
        await stream


async def test_a_replica_that_is_heard_of_again_keeps_its_streams() -> None:
    world = World()
    losses = world.watched()
    stream = await guarded(losses)
    for world.now, known in ((0.0, []), (5.0, ["a"]), (9.0, []), (12.0, ["a"])):
        losses.compare(known)
    await asyncio.sleep(0)
    assert not stream.done()
    stream.cancel()


async def test_replicas_that_run_nothing_are_nobodys_concern() -> None:
    world = World()
    losses = world.watched()
    for world.now in (0.0, 9.0):
        losses.compare([])
    stream = await guarded(losses)
    losses.compare([])
    await asyncio.sleep(0)
    assert not stream.done()
    stream.cancel()
