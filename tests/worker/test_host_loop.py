"""Steps that follow each other without a plan in between."""

from collections.abc import Iterator

import pytest

from easel.scheduler.messages import BatchPlan, BlockEvent, StepResult
from easel.scheduler.request import CommitRule, DiffusionParams, Request, SamplingParams
from easel.worker.runner import Runner
from tests.worker.driving import drain, generate
from tests.worker.rows import canvas, opening, reuse
from tests.worker.tiny import Layout, TinyCheckpoint

SLOW = DiffusionParams(steps=32, commit_rule=CommitRule.STATIC_SCHEDULE)  # one position a step


@pytest.fixture
def runner(endless: TinyCheckpoint) -> Runner:
    return endless.engine(Layout(slots=4, pages=16)).runner


def test_a_plan_is_repeated_as_often_as_it_says(endless: TinyCheckpoint, runner: Runner) -> None:
    results = _run(runner, endless.block_length, steps=3)
    assert (results.steps, [canvas.step for canvas in results.canvases]) == (3, [4, 4])
    assert not any(canvas.done for canvas in results.canvases)


def test_it_ends_with_the_first_canvas_that_is_finished(endless: TinyCheckpoint, runner: Runner) -> None:
    block = endless.block_length
    results = _run(runner, block, steps=100, known=3)
    assert results.steps == block - 3 - 1
    assert [canvas.done for canvas in results.canvases] == [False, True]
    assert [canvas.undecided for canvas in results.canvases] == [3, 0]
    assert [len(canvas.tokens) for canvas in results.canvases] == [0, block]


def test_it_ends_after_the_step_in_which_it_is_interrupted(endless: TinyCheckpoint, runner: Runner) -> None:
    asked: Iterator[bool] = iter([False, True])
    results = _run(runner, endless.block_length, steps=5, interrupted=asked)
    assert results.steps == 2


@pytest.mark.parametrize("interrupt", [True, False])
def test_an_engine_generates_the_same_whoever_interrupts_it(tiny: TinyCheckpoint, interrupt: bool) -> None:
    engine = tiny.engine(Layout(slots=3))
    requests = tiny.requests(12, seed=9)
    for request in requests:
        engine.submit(request)
    events: list[BlockEvent] = []
    while engine.has_work:
        events += [event for event in engine.step(lambda: interrupt) if isinstance(event, BlockEvent)]
    for request in requests:
        blocks = [event.tokens for event in events if event.request_id == request.request_id]
        assert tuple(blocks) == tiny.expected(request).blocks
    assert generate(engine, tiny.requests(1, seed=10))


def test_a_block_takes_one_plan_to_open_and_few_to_finish(endless: TinyCheckpoint) -> None:
    engine = endless.engine(Layout(slots=1))
    engine.submit(Request("r", (10,) * endless.block_length, SamplingParams(max_tokens=8, seed=1), SLOW))
    plans = 0
    while engine.has_work:
        engine.step()
        plans += 1
    assert engine.digest("", 0).steps == 8
    assert plans == 2
    assert drain(engine) == []


def _run(
    runner: Runner, block: int, steps: int, known: int = 0, interrupted: Iterator[bool] | None = None
) -> StepResult:
    """Two canvases, of which the second one has `known` positions to begin with, after their first step."""
    specs = [canvas(block, diffusion=SLOW), canvas(block, known=(11,) * known, diffusion=SLOW)]
    opens = [opening(slot, 0, block, (), spec) for slot, spec in enumerate(specs)]
    runner.run(BatchPlan(tuple(opens)))
    plan = BatchPlan((reuse(0, 0, block, ()), reuse(1, 0, block, ())), steps=steps)
    if interrupted is None:
        return runner.run(plan)
    return runner.run(plan, lambda: next(interrupted))
