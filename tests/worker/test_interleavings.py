"""Whatever order requests come, run and are cancelled in, each generates what it does alone."""

from dataclasses import dataclass, replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from easel.bench.oracles.cases import random_tokens
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import FinishReason, Request
from easel.worker.engine import Engine
from tests.worker.driving import assert_all_free, drain, generations
from tests.worker.tiny import VOCABULARY, Layout, TinyCheckpoint

POOL = 12  # different requests
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, POOL - 1)),
        st.tuples(st.just("step"), st.integers(1, 6)),
        st.tuples(st.just("cancel"), st.integers(0, 100)),
    ),
    min_size=1,
    max_size=25,
)
LAYOUTS = st.builds(
    Layout,
    slots=st.integers(1, 4),
    pages=st.integers(8, 16),
    page_blocks=st.sampled_from([1, 2]),
    refresh_blocks=st.integers(1, 5),
    compose_policy=st.sampled_from(ComposePolicy),
)


@settings(max_examples=20, deadline=None)
@given(layout=LAYOUTS, operations=OPERATIONS)
def test_in_any_interleaving_each_finished_request_equals_its_run_alone(
    tiny: TinyCheckpoint, layout: Layout, operations: list[tuple[str, int]]
) -> None:
    engine = tiny.engine(layout)
    run = Interleaving(engine, _pool(tiny), {}, [], set())
    for operation, value in operations:
        run.act(operation, value)
        engine.check()
    run.events += drain(engine)
    finished = generations(run.events)
    assert finished.keys() == run.submitted.keys()
    for name, generation in finished.items():
        if name in run.cancelled:
            assert generation.finish is FinishReason.CANCELLED
            continue
        assert generation == tiny.expected(run.submitted[name])
    assert_all_free(engine)


@dataclass(slots=True)
class Interleaving:
    engine: Engine
    pool: list[Request]
    submitted: dict[str, Request]
    events: list[BlockEvent]
    cancelled: set[str]

    def act(self, operation: str, value: int) -> None:
        if operation == "submit":
            name = f"r{len(self.submitted)}"
            self.submitted[name] = replace(self.pool[value], request_id=name)
            self.engine.submit(self.submitted[name])
        elif operation == "step":
            for _ in range(value):
                self.events += [event for event in self.engine.step() if isinstance(event, BlockEvent)]
        else:
            active = self.engine.digest("", 0).active
            if active:
                name = active[value % len(active)]
                self.engine.cancel(name)
                self.cancelled.add(name)
                assert name not in self.engine.digest("", 0).active


def _pool(tiny: TinyCheckpoint) -> list[Request]:
    """Half of them share beginnings, so that pages are shared, kept and evicted."""
    shared = random_tokens(Random(4), 2 * tiny.block_length, VOCABULARY)
    requests = tiny.requests(POOL, seed=12)
    return [
        replace(request, prompt=shared + request.prompt[: index * 2]) if index % 2 else request
        for index, request in enumerate(requests)
    ]
