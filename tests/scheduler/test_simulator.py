from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import PhasePolicy, Row
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.shards import ShardedScheduler
from easel.scheduler.sim_outcome import Central, Delays
from easel.scheduler.sim_work import BlockWork, ClosedLoop, OpenLoop, SimulatedRequest
from easel.scheduler.simulator import Simulation
from tests.fakes import FakeReplica, bidirectional_shape, request, shape
from tests.scheduler.simulations import COST, NO_DELAYS, random_works, settings, simulate, work


def step_seconds(tokens: int, pairs: int, head_rows: int) -> float:
    return COST.constant + COST.per_token * tokens + COST.per_pair * pairs + COST.per_head_row * head_rows


def test_one_request_takes_what_its_steps_take() -> None:
    """A prompt of 4 and two blocks of 4 on an idle replica: prefill and opening share a forward."""
    blocks = (BlockWork(steps=2, tokens=4), BlockWork(steps=1, tokens=3))
    (trace,) = simulate([work("a", arrival=1.0, prompt=4, blocks=blocks)]).outcome.requests
    first = step_seconds(4 + 4, 4 * 4 + 4 * 8, 4)  # prefill and open
    second = step_seconds(4, 4 * 8, 4)  # reuse
    third = step_seconds(4 + 4, 4 * 8 + 4 * 12, 4)  # commit and open
    assert trace.arrival == 1.0
    assert [block.at for block in trace.blocks] == pytest.approx(
        [1 + first + second, 1 + first + second + third]
    )
    assert [(block.steps, block.tokens) for block in trace.blocks] == [(2, 4), (1, 3)]
    assert trace.blocks[0].seconds == pytest.approx(first + second)


def test_messages_take_their_time() -> None:
    slow = Delays(to_scheduler=0.1, to_replica=0.2, to_client=0.4)
    blocks = (BlockWork(1, 2),)
    (at_once,) = simulate([work("a", blocks=blocks)]).outcome.requests
    (late,) = simulate([work("a", blocks=blocks)], delays=slow).outcome.requests
    assert late.seconds == pytest.approx(at_once.seconds + 0.7)


@pytest.mark.parametrize("policy", ComposePolicy)
@pytest.mark.parametrize("replicas", [1, 3])
def test_every_request_ends_once_with_all_its_blocks(policy: ComposePolicy, replicas: int) -> None:
    works = random_works(60, seed=replicas)
    cluster = simulate(works, settings(policy=policy), replicas=replicas, delays=Delays())
    ended = {trace.request_id: trace for trace in cluster.outcome.requests}
    assert len(cluster.outcome.requests) == len(ended) == len(works)
    assert cluster.outcome.unfinished == 0
    for one in works:
        found = [(block.steps, block.tokens) for block in ended[one.request.request_id].blocks]
        said = [(block.steps, block.tokens) for block in one.blocks]
        # A request whose last block is full learns only in the next one that it has ended.
        assert found[: len(said)] == said
        assert all(tokens == 0 for _, tokens in found[len(said) :])
    for replica in cluster.replicas.values():
        assert replica.scheduler.idle
        replica.scheduler.check()


@pytest.mark.parametrize("layout", SequenceLayout)
def test_all_layouts_come_to_an_end(layout: SequenceLayout) -> None:
    of = bidirectional_shape() if layout is SequenceLayout.BIDIRECTIONAL else replace(shape(), layout=layout)
    works = random_works(20, seed=3)
    assert len(simulate(works, settings(of)).outcome.requests) == 20


def test_equal_arguments_give_equal_outcomes() -> None:
    first, second = (simulate(random_works(50, seed=8), replicas=2, delays=Delays()) for _ in range(2))
    assert first.outcome.requests == second.outcome.requests
    assert first.replicas["replica-0"].log == second.replicas["replica-0"].log


def test_it_takes_the_same_steps_as_a_replica_that_is_driven_by_hand() -> None:
    """tests/fakes draws the blocks; the simulator is told the same ones."""
    fake = FakeReplica(shape(), policy=PhasePolicy(quantum=1))
    names = [f"request-{index}" for index in range(12)]
    fake.submit(request(names[0]))
    fake.step()  # the others come while it is under way
    for name in names[1:]:
        fake.submit(request(name))
    fake.drain()
    works = [
        SimulatedRequest(
            0.0,
            request(name),
            tuple(BlockWork(event.steps, len(event.tokens)) for event in fake.events[name]),
        )
        for name in names
    ]
    cluster = Simulation(
        OpenLoop(iter(works)),
        replace(settings(), policy=PhasePolicy(quantum=1)),
        central=Unpaced(ClusterLimits(queue_ahead=100)),
        delays=NO_DELAYS,
    )
    outcome = cluster.run()
    (replica,) = cluster.replicas.values()
    assert replica.log.canvases == [
        sum(not row.kind.writes_pages for row in plan.rows) for plan in fake.plans
    ]
    assert {trace.request_id: trace.tokens for trace in outcome.requests} == {
        name: len(fake.output(name)) for name in names
    }
    assert outcome.seconds == pytest.approx(fake.now)


class Unpaced(ClusterScheduler):
    """Places and paces nothing."""

    def policies(self, now: float) -> dict[str, PhasePolicy]:
        return {}


def test_a_request_that_comes_during_a_forward_waits_for_its_end() -> None:
    long = (BlockWork(steps=8, tokens=4),)
    first, second = simulate(
        [work("a", blocks=long), work("b", arrival=5e-4, blocks=(BlockWork(1, 1),))]
    ).outcome.requests
    assert (first.request_id, second.request_id) == ("b", "a")
    assert first.finish > 2 * COST.constant


def test_clients_of_a_closed_loop_have_one_request_under_way() -> None:
    asked: list[tuple[int, float]] = []

    def make(client: int, now: float) -> SimulatedRequest | None:
        asked.append((client, now))
        one = work(f"{client}-{len(asked)}", now, blocks=(BlockWork(2, 3),))
        return replace(one, client=client) if len(asked) <= 12 else None

    outcome = simulate(ClosedLoop(make, clients=3), delays=Delays()).outcome
    assert len(outcome.requests) == 12
    for client in range(3):
        mine = sorted((t.arrival, t.finish) for t in outcome.requests if t.client == client)
        assert all(later[0] >= sooner[1] for sooner, later in pairwise(mine))


def test_refusals_are_counted_and_nobody_waits_for_them() -> None:
    cluster = simulate(
        random_works(40, seed=1, spread=0.0), limits=ClusterLimits(max_waiting=3, queue_ahead=0)
    )
    refused = cluster.outcome.refused
    assert len(refused) + len(cluster.outcome.requests) == 40
    assert {reason for _, reason in refused} == {"QueueFull"}


def test_it_stops_where_it_is_told_and_goes_on_from_there() -> None:
    works = random_works(30, seed=5)
    whole = simulate(works).outcome
    cluster = Simulation(OpenLoop(iter(works)), settings(), central=_central(), delays=NO_DELAYS)
    half = cluster.run(until=0.2)
    assert half.seconds == 0.2
    assert 0 < len(half.requests) < 30
    assert cluster.run().requests == whole.requests


def test_several_shards_serve_as_one_scheduler_does() -> None:
    works = [
        replace(one, request=replace(one.request, tenant=f"tenant-{index % 7}"))
        for index, one in enumerate(random_works(60, seed=2))
    ]
    central: Central = ShardedScheduler(ClusterLimits(max_waiting=1000), shards=3)
    outcome = Simulation(OpenLoop(iter(works)), settings(), replicas=6, central=central).run()
    assert len(outcome.requests) == 60


def test_decisions_are_timed_with_the_callers_timer() -> None:
    ticks = iter(range(1_000_000))
    cluster = Simulation(
        OpenLoop(iter(random_works(10, seed=1))), settings(), timer=lambda: float(next(ticks))
    )
    decisions = cluster.run().decisions
    assert len(decisions.place) == len(decisions.end) == 10
    assert set(decisions.place + decisions.digest + decisions.tick) == {1.0}


def test_a_replica_charges_what_its_step_cost_says() -> None:
    seen: list[int] = []

    def step_cost(rows: Sequence[Row]) -> float:
        seen.append(len(rows))
        return 0.5

    of = replace(settings(), step_cost=step_cost)
    (trace,) = simulate([work("a", prompt=4, blocks=(BlockWork(3, 2),))], of).outcome.requests
    assert trace.seconds == pytest.approx(1.5)
    assert seen == [2, 1, 1]


def _central() -> ClusterScheduler:
    return ClusterScheduler(ClusterLimits(max_waiting=10_000))
