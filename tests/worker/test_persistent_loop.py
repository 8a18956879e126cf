"""An engine whose canvases take all their steps in one launch generates what the plain loop does."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from easel.kernels.canvas_state import Whole
from easel.kernels.persistent import PersistentControl
from easel.scheduler.messages import BatchPlan
from easel.scheduler.request import CommitRule, DiffusionParams
from easel.worker.denoise import MaskedDenoiser
from easel.worker.engine import Engine
from easel.worker.errors import WorkerError
from easel.worker.fixed_inputs import Bounds
from easel.worker.models.decoder import Decoder
from easel.worker.persistent_loop import PersistentLoop, persistent_weights
from tests.worker.driving import generate
from tests.worker.recording import Tape, kernels_for
from tests.worker.rows import canvas, opening, reuse
from tests.worker.tiny import Layout, TinyCheckpoint

SLOTS, PAGES = 4, 32
SLOW = DiffusionParams(steps=32, commit_rule=CommitRule.STATIC_SCHEDULE)  # one position a step


@pytest.fixture(autouse=True)
def _rows_as_the_kernel_reads_them(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with kernels_for(Tape(), monkeypatch):
        yield


def test_it_generates_what_the_plain_loop_does(tiny: TinyCheckpoint) -> None:
    engine = _persistent(tiny.engine(Layout(slots=SLOTS, pages=PAGES)))
    requests = tiny.requests(20, seed=15)
    assert generate(engine, requests) == {request.request_id: tiny.expected(request) for request in requests}


def test_canvases_take_as_many_steps_as_each_of_them_needs(endless: TinyCheckpoint) -> None:
    engine = _persistent(endless.engine(Layout(slots=SLOTS, pages=PAGES)))
    block, runner = endless.block_length, engine.runner
    specs = [canvas(block, diffusion=SLOW), canvas(block, known=(11,) * 5, diffusion=SLOW)]
    runner.run(BatchPlan(tuple(opening(slot, 0, block, (), spec) for slot, spec in enumerate(specs))))
    result = runner.run(BatchPlan((reuse(0, 0, block, ()), reuse(1, 0, block, ())), steps=100))
    assert result.steps == block - 1
    assert [found.step for found in result.canvases] == [block, 3]
    assert all(found.done for found in result.canvases)


def test_a_canvas_outside_the_batch_is_left_alone(endless: TinyCheckpoint) -> None:
    engine = _persistent(endless.engine(Layout(slots=SLOTS, pages=PAGES)))
    block, runner = endless.block_length, engine.runner
    for slot in (0, 2):
        runner.run(BatchPlan((opening(slot, 0, block, (), canvas(block, diffusion=SLOW)),)))
    runner.run(BatchPlan((reuse(2, 0, block, ()),), steps=3))
    integers = runner.machine.registers.state.integers
    assert integers[[0, 2], Whole.STEP].tolist() == [1, 4]
    assert integers[[0, 2], Whole.ACTIVE].tolist() == [1, 1]


def test_a_model_that_the_kernel_does_not_know_is_refused_in_words(tiny: TinyCheckpoint) -> None:
    model = tiny.engine(Layout(slots=1)).runner.machine.model
    assert isinstance(model, Decoder)
    biased = replace(model.layers[0], qkv_bias=torch.zeros(1))
    with pytest.raises(WorkerError, match=r"bias.*use 'graph'"):
        persistent_weights(replace(model, layers=(biased,)))
    with pytest.raises(WorkerError, match="rotated whole"):
        persistent_weights(replace(model, config=replace(model.config, rotary_dim=2)))


def _persistent(engine: Engine) -> Engine:
    runner, shape = engine.runner, engine.shape
    machine, denoiser = runner.machine, runner.machine.denoiser
    assert isinstance(denoiser, MaskedDenoiser)
    runner.loop = PersistentLoop(
        machine=machine,
        denoiser=denoiser,
        weights=persistent_weights(machine.model),
        bounds=Bounds(shape.block_length, (shape.pages,), shape.slots),
        control=PersistentControl.allocate(torch.device("cpu")),
    )
    return engine
