"""The load valve at a replica: canvases that open while it is open settle sooner, never later."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.messages import PhasePolicy, Row, Tightening
from easel.scheduler.request import CommitRule, DiffusionParams
from easel.scheduler.tightening import tightened
from tests.fakes import FakeReplica, request, shape

VALVE = Tightening(most_steps=6, threshold=0.7, entropy_bound=0.8)


def _opened(replica: FakeReplica) -> list[DiffusionParams]:
    rows: list[Row] = [row for plan in replica.plans for row in plan.rows]
    return [row.canvas.diffusion for row in rows if row.canvas is not None]


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        (CommitRule.CONFIDENCE_THRESHOLD, {"steps": 6, "threshold": 0.7}),
        (CommitRule.ENTROPY_BOUND, {"steps": 6, "entropy_bound": 0.8}),
        (CommitRule.STATIC_SCHEDULE, {"steps": 6}),
    ],
)
def test_each_rule_is_tightened_by_what_it_looks_at(rule: CommitRule, changes: dict[str, float]) -> None:
    asked = DiffusionParams(commit_rule=rule)
    steps = int(changes.pop("steps"))
    assert tightened(asked, VALVE) == replace(asked, steps=steps, **changes)


@given(
    st.builds(
        DiffusionParams,
        steps=st.integers(1, 64),
        commit_rule=st.sampled_from(CommitRule),
        threshold=st.floats(0.0, 1.0),
        entropy_bound=st.floats(0.0, 3.0),
    ),
    st.builds(
        Tightening,
        most_steps=st.none() | st.integers(1, 64),
        threshold=st.none() | st.floats(0.0, 1.0),
        entropy_bound=st.none() | st.floats(0.0, 3.0),
    ),
)
def test_nothing_is_ever_loosened(asked: DiffusionParams, valve: Tightening) -> None:
    found = tightened(asked, valve)
    assert found.steps <= asked.steps
    assert found.threshold <= asked.threshold
    assert found.entropy_bound >= asked.entropy_bound
    assert (found is asked) == (found == asked)


def test_a_request_that_asks_for_less_is_left_alone_and_not_reported() -> None:
    policy = PhasePolicy(tightening=Tightening(most_steps=50))
    replica = FakeReplica(shape(), policy=policy)
    replica.submit(request("a"))
    replica.drain()
    assert set(_opened(replica)) == {DiffusionParams()}
    assert not any(event.tightened for event in replica.events["a"])


def test_blocks_that_open_while_the_valve_is_open_say_so() -> None:
    replica = FakeReplica(shape(), min_steps=3, max_steps=3)
    replica.submit(request("a", prompt=4, max_tokens=16))
    for epoch, valve in ((1, None), (2, VALVE), (3, VALVE), (4, None)):
        replica.scheduler.set_policy(PhasePolicy(epoch=epoch, tightening=valve), replica.now)
        for _ in range(3):
            replica.step()
    assert [event.tightened for event in replica.events["a"]] == [False, True, True, False]
    assert [diffusion.steps for diffusion in _opened(replica)] == [32, 6, 6, 32]


def test_a_valve_that_opens_after_a_block_was_finished_holds_for_the_next() -> None:
    replica = FakeReplica(shape(), min_steps=1, max_steps=1)
    replica.submit(request("a", prompt=4, max_tokens=8))
    replica.step()
    replica.scheduler.set_policy(PhasePolicy(epoch=1, tightening=VALVE), replica.now)
    replica.drain()
    assert [event.tightened for event in replica.events["a"]] == [False, True]
