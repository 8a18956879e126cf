"""Recorded steps of DiffusionGemma generate what the plain loop generates, and nothing waits in them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

import pytest
import torch
from torch import Tensor

from easel.bench.oracles.diffusion_gemma import Generation, Settings, TinyGemma
from easel.kernels import moe, noise_triton, renoise, renoise_triton, soft_embedding, soft_head, soft_triton
from easel.kernels.soft_embedding import reference_soft_embed
from easel.kernels.tiles import TILE, Head
from easel.worker.fixed_inputs import Bounds, bucket_sizes
from easel.worker.graph_loop import GraphLoop
from easel.worker.host_loop import Interrupted
from easel.worker.models import gemma_layers
from easel.worker.runner import Runner
from easel.worker.step_program import StepProgram
from tests.worker.models.gemma_rig import PAGES, Asked, GemmaCheckpoint, drive, write_checkpoint
from tests.worker.recording import HostWaited, Tape, TapeRecorder, kernels_for

CANVAS, WINDOW, SLOTS = 8, 16, 5
SMALL, TILED = 105, TILE + 76  # vocabularies whose logits are held whole, and in tiles


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, GemmaCheckpoint]:
    """By vocabulary."""
    return {
        vocabulary: write_checkpoint(
            tmp_path_factory.mktemp("gemma"),
            TinyGemma(vocab_size=vocabulary, canvas_length=CANVAS, window=WINDOW),
        )
        for vocabulary in (SMALL, TILED)
    }


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tape]:
    tape = Tape()
    with kernels_for(tape, monkeypatch), monkeypatch.context() as patched:
        patched.setattr(gemma_layers, "expert_mlp", moe.expert_mlp_static)
        for module in (soft_head, soft_embedding):
            patched.setattr(module, "has_triton", _on_a_gpu)
        patched.setattr(soft_triton, "tiled_soft_embed", tape.launched(_soft_embed))
        yield tape


@pytest.mark.parametrize("late", [0, 1], ids=["stops at once", "stops a step late"])
@pytest.mark.parametrize("vocabulary", [SMALL, TILED])
def test_recorded_steps_generate_what_the_plain_loop_does(
    checkpoint_of: Mapping[int, GemmaCheckpoint], tape: Tape, vocabulary: int, late: int
) -> None:
    checkpoint = checkpoint_of[vocabulary]
    loop, found = _generated(checkpoint, tape, late, steps=4)
    assert found == [checkpoint.expected(request, ()) for request in _requests(vocabulary)]
    assert loop.recordings


def test_launches_that_draw_and_renoise_are_recorded_as_the_torch_path_is(
    checkpoint_of: Mapping[int, GemmaCheckpoint], tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Triton's interpreter."""
    checkpoint = checkpoint_of[SMALL]
    monkeypatch.setattr(renoise, "has_triton", _on_a_gpu)
    monkeypatch.setattr(renoise_triton, "fused_renoise", tape.launched(renoise_triton.fused_renoise))
    monkeypatch.setattr(noise_triton, "fused_uniform", tape.launched(noise_triton.fused_uniform))
    _, found = _generated(checkpoint, tape, late=0, steps=4)
    assert found == [checkpoint.expected(request, ()) for request in _requests(SMALL)]


def test_experts_that_wait_for_the_device_cannot_be_recorded(
    checkpoint_of: Mapping[int, GemmaCheckpoint], tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemma_layers, "expert_mlp", moe._by_expert)
    with pytest.raises(HostWaited, match="bincount"):
        _generated(checkpoint_of[SMALL], tape, late=0, steps=1)


@dataclass(frozen=True, slots=True)
class Repeating:
    """Batches that write nothing are repeated, until a canvas is finished."""

    loop: GraphLoop
    steps: int

    def run(self, program: StepProgram, most: int, interrupted: Interrupted) -> int:
        return self.loop.run(program, most if program.batch.written.numel() else self.steps, interrupted)


def _generated(
    checkpoint: GemmaCheckpoint, tape: Tape, late: int, steps: int
) -> tuple[GraphLoop, list[Generation]]:
    """The requests driven side by side by a runner that records its steps."""
    requests = _requests(checkpoint.tiny.vocab_size)
    runner: Runner = checkpoint.runner(SLOTS + 1)
    bounds = Bounds(CANVAS, (PAGES, PAGES), spare_slot=SLOTS)
    loop = GraphLoop(runner.machine, TapeRecorder(tape, late), bounds, bucket_sizes(SLOTS))
    runner.loop = Repeating(loop, steps)
    return loop, drive(runner, requests, (), chunk=13)


def _requests(vocabulary: int) -> list[Asked]:
    """Prompts from shorter to longer than the window, one to three canvases; they end one by one."""
    draw = Random(vocabulary)
    settings = [Settings(entropy_bound=4.0, stop_entropy=1.0), Settings(steps=5), Settings(steps=9)]
    return [
        Asked(
            prompt=tuple(draw.choices(range(vocabulary), k=length)),
            max_tokens=draw.choice([8, 16, 20]),
            seed=draw.getrandbits(62),
            settings=settings[length % len(settings)],
        )
        for length in (3, 16, 25, 40, 11)
    ]


def _on_a_gpu(tensor: Tensor) -> bool:
    return True


def _soft_embed(
    hidden: Tensor, head: Head, temperature: Tensor, highest: Tensor, active: Tensor | None, out: Tensor
) -> None:
    found = reference_soft_embed(hidden, head, temperature).to(out.dtype)
    out.copy_(found if active is None else torch.where(active[:, None], found, out))
