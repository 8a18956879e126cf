"""Leases of the scheduler as an actor: epochs that only grow, with a journal and without."""

import asyncio
from dataclasses import replace

import pytest

from easel.cluster.journal import JournalSettings
from easel.cluster.valkey_server import EmbeddedValkey
from tests.cluster.scheduler_world import World, a_digest, a_ticket, settle

pytestmark = pytest.mark.asyncio


async def test_epochs_grow_without_a_journal_and_across_a_restart() -> None:
    world = World()
    await world.actor.digest(a_digest("a", 1, slots=9))
    epochs = [(await world.actor.place(a_ticket(name))).lease_epoch for name in "abc"]
    restarted = World(wall=world.wall + 1.0)
    await restarted.actor.digest(a_digest("a", 1, slots=9))
    epochs.append((await restarted.actor.place(a_ticket("d"))).lease_epoch)
    assert epochs == sorted(set(epochs))
    assert (await world.actor.status())["journal"] == "degraded"


async def test_a_clock_that_was_put_back_makes_no_lease_older_than_the_last() -> None:
    world = World(wall=7200.0)
    await world.actor.digest(a_digest("a", 1, slots=9))
    first = await world.actor.place(a_ticket("r"))
    restarted = World(wall=3600.0)
    await restarted.actor.digest(a_digest("a", 1, slots=9))
    second = await restarted.actor.place(replace(a_ticket("r"), lease_epoch=first.lease_epoch))
    assert second.lease_epoch > first.lease_epoch


async def test_a_lease_is_written_to_the_journal(valkey: EmbeddedValkey) -> None:
    world = World(JournalSettings(valkey.url, prefix="actor:"))
    await world.actor.digest(a_digest("a", 1, slots=9))
    first = await world.actor.place(a_ticket("r"))
    again = await world.actor.place(a_ticket("r"))
    assert again.lease_epoch > first.lease_epoch
    assert (await world.actor.status())["journal"] == "ok"
    await world.actor.close()


async def test_a_replica_lost_while_a_lease_is_written_gets_no_request() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass  # says nothing
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        world = World(JournalSettings(f"redis://127.0.0.1:{port}", timeout_seconds=0.1))
        await world.actor.digest(a_digest("a", 1))
        placing = asyncio.ensure_future(world.actor.place(a_ticket("r")))
        await settle()
        await world.actor.report_lost("a")
        await world.actor.digest(a_digest("b", 1))
        assert (await placing).replica_id == "b"
        await world.actor.close()
