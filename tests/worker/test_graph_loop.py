"""Recorded steps generate what the host's loop generates, and nothing is frozen in them."""

from collections.abc import Iterator
from random import Random

import pytest
import torch
from torch import Tensor

from easel.bench.oracles.cases import random_tokens
from easel.kernels import commit, commit_triton
from easel.kernels.canvas_state import Whole
from easel.scheduler.messages import CanvasSpec, StepResult
from easel.scheduler.request import DiffusionParams, SamplingParams
from easel.worker.denoise import MaskedDenoiser
from easel.worker.engine import Engine
from easel.worker.fixed_inputs import Bounds, bucket_of, bucket_sizes
from easel.worker.graph_loop import GraphLoop
from easel.worker.registers import CanvasRegisters
from easel.worker.runner import Runner
from easel.worker.step_program import Machine
from tests.worker.driving import generate
from tests.worker.recording import HostWaited, Tape, TapeRecorder, kernels_for
from tests.worker.rows import canvas, opening, plan, reuse, write
from tests.worker.tiny import VOCABULARY, Layout, TinyCheckpoint

SLOTS, PAGES = 5, 32


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tape]:
    tape = Tape()
    with kernels_for(tape, monkeypatch):
        yield tape


@pytest.mark.parametrize("late", [0, 1], ids=["stops at once", "stops a step late"])
def test_recorded_steps_generate_what_the_plain_loop_does(
    tiny: TinyCheckpoint, tape: Tape, late: int
) -> None:
    engine = _recording(tiny.engine(Layout(slots=SLOTS, pages=PAGES)), tape, late)
    requests = [request for request in tiny.requests(24, seed=5) if not _cut(request.sampling)]
    found = generate(engine, requests)
    assert found == {request.request_id: tiny.expected(request) for request in requests}
    assert len(requests) > 8
    assert _loop(engine.runner).recordings


def test_the_fused_commit_can_be_recorded_too(
    tiny: TinyCheckpoint, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_triton(_tensor: Tensor) -> bool:
        return True

    monkeypatch.setattr(commit, "has_triton", has_triton)
    monkeypatch.setattr(commit_triton, "fused_commit", tape.launched(commit_triton.fused_commit))
    engine = _recording(tiny.engine(Layout(slots=SLOTS, pages=PAGES)), tape)
    requests = [request for request in tiny.requests(8, seed=5) if not _cut(request.sampling)]
    assert generate(engine, requests) == {request.request_id: tiny.expected(request) for request in requests}
    assert _loop(engine.runner).recordings


def test_requests_whose_distribution_is_cut_are_left_to_the_host(tiny: TinyCheckpoint, tape: Tape) -> None:
    engine = _recording(tiny.engine(Layout(slots=SLOTS, pages=PAGES)), tape)
    requests = [request for request in tiny.requests(16, seed=6) if _cut(request.sampling)]
    assert generate(engine, requests) == {request.request_id: tiny.expected(request) for request in requests}
    assert not _loop(engine.runner).recordings


@pytest.mark.parametrize("seed", range(6))
def test_a_recording_reads_every_input_anew(endless: TinyCheckpoint, tape: Tape, seed: int) -> None:
    """Recorded with one batch, launched with another one that differs in everything there is."""
    host = endless.engine(Layout(slots=SLOTS, pages=PAGES)).runner
    recorded = _recording(endless.engine(Layout(slots=SLOTS, pages=PAGES)), tape).runner
    first, second = _Batch(endless, Random(seed), 3), _Batch(endless, Random(seed + 100), 4)
    for runner in (host, recorded):
        first.run(runner)
        second.run(runner)
    assert len(_loop(recorded).recordings) == 1, "both batches are of one bucket and have the same traits"
    for name, held in host.machine.registers.state.tensors().items():
        torch.testing.assert_close(
            recorded.machine.registers.state.tensors()[name][:SLOTS], held, atol=1e-4, rtol=1e-4, msg=name
        )


@torch.inference_mode()
@pytest.mark.parametrize("name", ["positions", "slots", "filled_from", "canvases", "rows", "pages", "keys"])
def test_a_change_of_any_input_after_recording_changes_the_next_step(
    endless: TinyCheckpoint, tape: Tape, name: str
) -> None:
    runner = _recording(endless.engine(Layout(slots=SLOTS, pages=PAGES)), tape).runner
    _Batch(endless, Random(1), 4).run(runner)
    (held,) = _loop(runner).recordings.values()
    ragged = held.inputs.batch.layouts[0].ragged
    assert ragged is not None
    inputs = {
        "positions": held.inputs.batch.positions,
        "slots": held.inputs.batch.slots,
        "filled_from": held.inputs.batch.filled_from,
        "canvases": held.inputs.batch.canvases,
        "rows": ragged.table,
        "pages": ragged.pages,
        "keys": runner.machine.cache.keys[0],
    }
    before = _launched(runner, held.inputs.batch.slots)
    inputs[name].copy_(_changed(name, inputs[name]))
    assert not torch.equal(before, _launched(runner, held.inputs.batch.slots))


def test_what_waits_for_the_device_cannot_be_recorded(endless: TinyCheckpoint, tape: Tape) -> None:
    runner = _recording(endless.engine(Layout(slots=SLOTS, pages=PAGES)), tape).runner
    denoiser = runner.machine.denoiser
    assert isinstance(denoiser, MaskedDenoiser)
    waits = MaskedDenoiser(denoiser.registers, denoiser.head, denoiser.eos_token_ids, fixed_shapes=False)
    machine = Machine(runner.machine.model, runner.machine.cache, denoiser.registers, waits)
    runner.machine = machine
    _loop(runner).machine = machine
    with pytest.raises(HostWaited, match="nonzero"):
        _Batch(endless, Random(0), 2).run(runner)


def test_buckets_hold_every_batch_and_pad_little() -> None:
    sizes = bucket_sizes(100)
    assert sizes == (1, 2, 4, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 100)
    for count in range(1, 101):
        assert count <= bucket_of(count, sizes) < 2 * count or count == 1
    assert bucket_sizes(1) == (1,)
    assert bucket_sizes(5) == (1, 2, 4, 5)


class _Batch:
    """Canvases over prefixes of their own, some steps of them, everything drawn."""

    def __init__(self, tiny: TinyCheckpoint, draw: Random, count: int) -> None:
        self._block = tiny.block_length
        self._slots = draw.sample(range(SLOTS), count)
        pages = draw.sample(range(PAGES), 3 * count)
        self._pages = [tuple(pages[3 * index :][: draw.randint(0, 3)]) for index in range(count)]
        self._prefixes = [random_tokens(draw, len(held) * self._block, VOCABULARY) for held in self._pages]
        self._specs = [self._spec(draw) for _ in range(count)]

    def _spec(self, draw: Random) -> CanvasSpec:
        return canvas(
            self._block,
            known=random_tokens(draw, draw.randint(0, 3), VOCABULARY),
            block_index=draw.randint(0, 9),
            sampling=SamplingParams(temperature=draw.choice([0.5, 2.0]), seed=draw.getrandbits(62)),
            diffusion=DiffusionParams(steps=draw.choice([2, 8]), threshold=draw.choice([0.2, 0.9])),
        )

    def run(self, runner: Runner) -> list[StepResult]:
        rows = list(zip(self._slots, self._pages, self._prefixes, self._specs, strict=True))
        writes = [write(slot, 0, prefix, pages) for slot, pages, prefix, _ in rows if pages]
        if writes:
            runner.run(plan(*writes))
        block = self._block
        opens = [opening(slot, len(pages) * block, block, pages, spec) for slot, pages, _, spec in rows]
        steps = [reuse(slot, len(pages) * block, block, pages) for slot, pages, _, _ in rows]
        return [runner.run(plan(*opens)), runner.run(plan(*steps)), runner.run(plan(*steps))]


def _cut(sampling: SamplingParams) -> bool:
    return sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1.0)


def _launched(runner: Runner, slots: Tensor) -> Tensor:
    """What a recorded step leaves in the registers, which are then put back."""
    (held,) = _loop(runner).recordings.values()
    state = runner.machine.registers.state
    kept = {name: tensor.clone() for name, tensor in state.tensors().items()}
    state.decided[:] = False
    state.tokens[:] = runner.machine.registers.mask_token_id
    state.tokens[:, 0] = torch.arange(len(state.tokens))
    state.whole(Whole.ACTIVE).fill_(1)
    held.state.start(1)
    held.recording.run(1, lambda: False)
    found = torch.cat((state.confidence.flatten(), state.tokens.flatten().float()))
    for name, tensor in state.tensors().items():
        tensor.copy_(kept[name])
    return found


def _changed(name: str, held: Tensor) -> Tensor:
    """Other content that is as valid."""
    if name == "slots":
        return held.roll(1)
    if name == "rows":
        changed = held.clone()
        changed[:, 4] = (held[:, 4] - 8).clamp(min=0)  # shorter prefixes
        return changed
    if name == "keys":
        return held * 3.0
    return held.flatten().roll(3).view_as(held)


def _loop(runner: Runner) -> GraphLoop:
    assert isinstance(runner.loop, GraphLoop)
    return runner.loop


def _recording(engine: Engine, tape: Tape, late: int = 0) -> Engine:
    """The engine with a loop that records, and the spare slot that this needs."""
    runner, shape = engine.runner, engine.shape
    machine, denoiser = runner.machine, runner.machine.denoiser
    assert isinstance(denoiser, MaskedDenoiser)
    mask = machine.registers.mask_token_id
    registers = CanvasRegisters.allocate(shape.slots + 1, shape.block_length, mask, machine.registers.device)
    fixed = MaskedDenoiser(registers, denoiser.head, denoiser.eos_token_ids, fixed_shapes=True)
    runner.machine = Machine(machine.model, machine.cache, registers, fixed)
    bounds = Bounds(shape.block_length, (shape.pages,), shape.slots)
    runner.loop = GraphLoop(runner.machine, TapeRecorder(tape, late), bounds, bucket_sizes(shape.slots))
    return engine
