"""A client's stream, whatever happens to the replicas behind it."""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

import pytest

from easel.cluster.dispatch import RayBackend
from easel.cluster.errors import RetriesExhausted
from easel.cluster.journal_writer import JournalWriter
from easel.cluster.placement_watch import PlacementWatch
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from tests.cluster.fakes import BLOCK, FakeJournal, FakeReplicas, FakeScheduler, a_block, a_request

pytestmark = pytest.mark.asyncio

WHOLE = [a_block(0), a_block(1), a_block(2, last=True)]


@dataclass(slots=True)
class Watch:
    """Writes down what it hears."""

    heard: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])

    def placed(self, request_id: str, replica_id: str, attempt: int) -> None:
        self.heard.append(("placed", request_id, replica_id, attempt))

    def left(self, request_id: str, replica_id: str, how: str) -> None:
        self.heard.append(("left", request_id, replica_id, how))


@dataclass(slots=True)
class World:
    """A backend and all it talks to."""

    scheduler: FakeScheduler = field(default_factory=lambda: FakeScheduler(["a", "b", "c"]))
    journal: FakeJournal = field(default_factory=FakeJournal)
    replicas: FakeReplicas = field(init=False)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.replicas = FakeReplicas(self.journal)

    def backend(self, max_attempts: int = 4, watch: PlacementWatch | None = None) -> RayBackend:
        writer = JournalWriter(self.journal, lambda _: None)
        return RayBackend(
            self.scheduler,
            self.replicas,
            self.journal,
            writer,
            page_size=BLOCK,
            max_attempts=max_attempts,
            clock=self.clock,
            watch=watch,
        )

    def clock(self) -> float:
        """Every look takes a second."""
        self.now += 1.0
        return self.now

    async def collect(self) -> list[BlockEvent | CanvasSnapshot]:
        return [event async for event in self.backend().stream(a_request())]


async def settle() -> None:
    """Let background calls that wait for nothing run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_undisturbed_request_takes_one_placement() -> None:
    world = World()
    assert await world.collect() == WHOLE
    await settle()
    assert len(world.scheduler.tickets) == 1
    assert world.scheduler.ended == ["r"]
    assert world.scheduler.reported == []


@pytest.mark.parametrize("computed", [0, 1, 2])
@pytest.mark.parametrize("unseen", [0, 1])
async def test_a_death_neither_loses_nor_repeats_a_block(computed: int, unseen: int) -> None:
    world = World()
    world.replicas.dies_after["a"] = computed
    world.replicas.unseen["a"] = min(unseen, computed)
    assert await world.collect() == WHOLE
    assert world.scheduler.tickets[1].excluded == frozenset({"a"})
    assert len(world.replicas.tasks[1].request.committed) == computed * BLOCK
    assert world.replicas.tasks[1].lease_epoch > world.replicas.tasks[0].lease_epoch


async def test_a_last_block_that_only_the_journal_saw_ends_the_stream() -> None:
    world = World()
    world.replicas.unseen["a"] = 1
    assert await world.collect() == WHOLE
    assert len(world.replicas.tasks) == 1


async def test_without_a_journal_unseen_blocks_are_computed_again() -> None:
    world = World()
    world.journal.away = True
    world.replicas.dies_after["a"] = 2
    world.replicas.unseen["a"] = 1
    assert await world.collect() == WHOLE
    assert len(world.replicas.tasks[1].request.committed) == BLOCK


async def test_a_replica_that_hangs_is_left_when_the_scheduler_gives_it_up() -> None:
    world = World()
    world.replicas.hangs_after["a"] = 1
    events: list[BlockEvent | CanvasSnapshot] = []
    async for event in world.backend().stream(a_request()):
        events.append(event)
        if len(events) == 1:
            world.scheduler.lost.put_nowait("a")
    assert events == WHOLE
    assert world.replicas.closed == ["a", "b"]


async def test_a_request_is_given_up_after_so_many_deaths() -> None:
    world = World()
    world.replicas.dies_after = {"a": 0, "b": 0}
    with pytest.raises(RetriesExhausted) as caught:
        async for _ in world.backend(max_attempts=2).stream(a_request()):
            pass
    assert caught.value.attempts == 2
    await settle()
    assert world.scheduler.reported == ["a", "b"]
    assert world.scheduler.ended == ["r"]


async def test_closing_the_stream_ends_the_request_at_the_replica() -> None:
    world = World()
    async with aclosing(world.backend().stream(a_request())) as events:
        assert await anext(events) == WHOLE[0]
    await settle()
    assert world.replicas.closed == ["a"]
    assert world.scheduler.ended == ["r"]


async def test_a_client_that_leaves_while_waiting_for_a_block_ends_the_request() -> None:
    world = World()
    world.replicas.hangs_after["a"] = 0
    stream = world.backend().stream(a_request())
    waiting = asyncio.ensure_future(anext(stream))
    await settle()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await settle()
    assert world.replicas.closed == ["a"]
    assert world.scheduler.ended == ["r"]


async def test_a_ticket_asks_only_for_what_is_still_to_come() -> None:
    world = World()
    world.replicas.dies_after["a"] = 2
    await world.collect()
    first, second = world.scheduler.tickets
    assert (first.prompt_tokens, first.max_tokens) == (BLOCK, 3 * BLOCK)
    assert (second.prompt_tokens, second.max_tokens) == (3 * BLOCK, BLOCK)
    assert second.page_hashes[:1] == first.page_hashes
    assert len(second.page_hashes) == 3


async def test_status_tells_how_often_requests_were_carried_over() -> None:
    world = World()
    world.replicas.dies_after["a"] = 1
    backend = world.backend()
    assert [event async for event in backend.stream(a_request())] == WHOLE
    assert (await backend.status())["resumed"] == 1
    assert await backend.ready()


async def test_a_missing_block_counts_as_a_lost_replica() -> None:
    world = World()
    world.replicas.skips["a"] = 1
    assert await world.collect() == WHOLE
    assert world.scheduler.reported == ["a"]


@pytest.mark.parametrize("done", [0, 1, 2])
async def test_a_request_that_is_handed_over_goes_on_where_it_stopped(done: int) -> None:
    world = World()
    world.replicas.hands_over_once["a"] = done
    events = [event async for event in world.backend(max_attempts=1).stream(a_request())]
    assert events == WHOLE
    first, second = world.scheduler.tickets
    assert (first.admitted, second.admitted) == (False, True)
    assert second.excluded == frozenset()
    assert world.replicas.tasks[1].history == tuple(WHOLE[:done])
    assert world.scheduler.reported == []


@pytest.mark.parametrize("how", ["draining", "gone"])
async def test_a_replica_that_is_about_to_go_costs_no_attempt(how: str) -> None:
    world = World()
    (world.replicas.draining if how == "draining" else world.replicas.gone).add("a")
    events = [event async for event in world.backend(max_attempts=1).stream(a_request())]
    await settle()
    assert events == WHOLE
    assert world.scheduler.tickets[1].excluded == frozenset({"a"})
    assert (world.scheduler.leaving, world.scheduler.reported) == (["a"], [])


async def test_every_replica_is_told_what_is_left_of_the_deadline() -> None:
    world = World()
    world.replicas.dies_after["a"] = 1
    async for _ in world.backend().stream(replace(a_request(), deadline_seconds=60.0)):
        pass
    left = [task.request.deadline_seconds or 0.0 for task in world.replicas.tasks]
    assert 60.0 > left[0] > left[1] > 50.0


async def test_a_resumed_request_begins_after_the_blocks_that_are_there() -> None:
    world = World()
    done = WHOLE[:2]
    committed = tuple(token for block in done for token in block.tokens)
    request = replace(a_request(), committed=committed)
    events = [event async for event in world.backend().stream(request, done)]
    assert events == WHOLE[2:]
    assert world.replicas.tasks[0].history == tuple(done)
    assert world.scheduler.tickets[0].admitted


async def test_the_scheduler_learns_how_many_tokens_a_request_came_to() -> None:
    world = World()
    await world.collect()
    await settle()
    assert world.scheduler.output_tokens == {"r": 3 * BLOCK}


async def test_whoever_watches_hears_where_a_request_goes_and_how_it_leaves() -> None:
    world = World()
    world.replicas.dies_after["a"] = 1
    world.replicas.draining.add("b")
    watch = Watch()
    async for _ in world.backend(watch=watch).stream(a_request()):
        pass
    assert watch.heard == [
        ("placed", "r", "a", 1),
        ("left", "r", "a", "replica_lost"),
        ("placed", "r", "b", 2),
        ("left", "r", "b", "refused"),
        ("placed", "r", "c", 3),
    ]


async def test_deaths_between_which_blocks_are_finished_are_not_held_against_a_request() -> None:
    world = World()
    world.replicas.dies_after = {"a": 1, "b": 1}
    events = [event async for event in world.backend(max_attempts=2).stream(a_request())]
    assert events == WHOLE
