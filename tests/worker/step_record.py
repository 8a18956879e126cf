"""What every denoising step of every request comes to, bit for bit, however requests share forwards."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import torch
from torch import Tensor

from easel.kernels.canvas_state import Whole
from easel.kernels.commit import StepTraits
from easel.scheduler.messages import CanvasSpec, PhasePolicy
from easel.scheduler.request import Request
from easel.worker.denoise import Denoiser
from easel.worker.engine import Engine
from tests.worker.driving import STEP_LIMIT, drain

Key = tuple[int, int, int]  # seed of the request, block, step
Bits = tuple[bytes, ...]


@dataclass(slots=True)
class StepRecord:
    """A family's denoiser that also keeps what it is given and what it leaves, by request and step.

    Given are hidden states, from which logits follow; the head's statistics are in what it leaves.
    """

    inner: Denoiser
    engine: Engine
    steps: dict[Key, Bits] = field(default_factory=dict[Key, Bits])

    def open(self, slot: int, spec: CanvasSpec) -> None:
        self.inner.open(slot, spec)

    def conditioning(self, slots: Tensor) -> Tensor | None:
        return self.inner.conditioning(slots)

    def bytes_per_slot(self) -> int:
        return self.inner.bytes_per_slot()

    def step(self, at: Tensor, hidden: Tensor, traits: StepTraits) -> None:
        state = self.engine.runner.machine.registers.state
        before = state.integers[at].clone()
        # Of a partial step other positions have no hidden state; what is renoised is never decided.
        asked = ~state.decided[at] if self.engine.shape.partial else torch.ones_like(state.decided[at])
        self.inner.step(at, hidden, traits)
        for row, slot in enumerate(at.tolist()):
            if before[row, Whole.ACTIVE]:
                key = tuple(int(before[row, part]) for part in (Whole.SEED, Whole.BLOCK_INDEX, Whole.STEP))
                left = (state.tokens, state.decided, state.confidence, state.integers, state.numbers)
                seen = (hidden[row][asked[row]], *(tensor[slot] for tensor in left))
                self.steps[key[0], key[1], key[2]] = tuple(_bits(tensor) for tensor in seen)


def _bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def recorded(engine: Engine) -> StepRecord:
    """Lets the engine's steps be recorded from now on."""
    machine = engine.runner.machine
    record = StepRecord(machine.denoiser, engine)
    engine.runner.machine = replace(machine, denoiser=record)
    return record


def steps_of(engine: Engine, requests: Iterable[Request]) -> dict[Key, Bits]:
    """Runs requests one after the other, each alone."""
    record = recorded(engine)
    for request in requests:
        engine.submit(request)
        drain(engine)
    engine.runner.machine = replace(engine.runner.machine, denoiser=record.inner)
    return record.steps


def steps_together(engine: Engine, requests: Sequence[Request], draw: Random) -> dict[Key, Bits]:
    """Runs requests that arrive at random moments, under a random policy."""
    record, waiting = recorded(engine), list(requests)
    draw.shuffle(waiting)
    engine.set_policy(
        PhasePolicy(
            refresh_tokens=draw.choice([engine.shape.block_length, 40, 1000]),
            target_seconds=1e3,
            fuse_commits=draw.random() < 0.7,
            opens_per_step=draw.randint(1, 8),
        )
    )
    for _ in range(STEP_LIMIT):
        while waiting and draw.random() < 0.7:
            engine.submit(waiting.pop())
        engine.step()
        if not waiting and not engine.has_work:
            break
    engine.check()
    engine.runner.machine = replace(engine.runner.machine, denoiser=record.inner)
    return record.steps


def differing(expected: dict[Key, Bits], found: dict[Key, Bits]) -> list[Key]:
    """Steps of requests that are in both whose bits, or whose being there, are not the same."""
    seeds = {key[0] for key in expected} & {key[0] for key in found}
    keys = {key for key in (*expected, *found) if key[0] in seeds}
    return sorted(key for key in keys if expected.get(key) != found.get(key))
