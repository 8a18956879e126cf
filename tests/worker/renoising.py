"""A renoising denoiser without a model, canvases for it, and its definition: a canvas, a step at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from easel.kernels.canvas_state import Real, Whole
from easel.kernels.noise import uniform
from easel.scheduler.messages import CanvasSpec
from easel.scheduler.request import DiffusionParams, SamplingParams
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache
from easel.worker.registers import CanvasRegisters
from easel.worker.renoise import RenoisingDenoiser
from tests.worker.rows import canvas
from tests.worker.values import floats, ints

BLOCK, VOCABULARY, WIDTH = 6, 33, 8
SOFTCAP = 20.0
CPU = torch.device("cpu")
DIFFUSION = DiffusionParams(
    steps=5, entropy_bound=1.0, stop_entropy=0.3, temperature_start=0.8, temperature_end=0.4
)
SPECS = (
    canvas(BLOCK, sampling=SamplingParams(temperature=1.0, seed=11), diffusion=DIFFUSION),
    canvas(
        BLOCK,
        block_index=3,
        sampling=SamplingParams(temperature=0.5, seed=2**62),
        diffusion=replace(DIFFUSION, steps=9, entropy_bound=0.0, stability=2, stop_entropy=None),
    ),
    canvas(
        2,
        sampling=SamplingParams(temperature=0.0, seed=5),
        diffusion=replace(DIFFUSION, steps=2, entropy_bound=50.0),
    ),
    canvas(
        BLOCK,
        sampling=SamplingParams(temperature=1.5, seed=11, top_k=3, top_p=0.9),
        diffusion=replace(DIFFUSION, steps=1),
    ),
)


@dataclass(frozen=True, slots=True)
class Head:
    """A model's head without the model."""

    head: Tensor
    softcap: float

    def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None) -> Tensor:
        raise NotImplementedError


class Definition:
    """One canvas by the published loop, in float64, its noise drawn number by number."""

    def __init__(self, spec: CanvasSpec, head: Tensor) -> None:
        self._spec = spec
        self._head = head.double()
        self._step = 0
        self._predictions: list[list[int]] = []
        self.accepted: list[bool] = []
        self.best: list[int] = []
        self.soft = torch.zeros(0)
        self.done = False
        self.mean_entropy = 0.0
        self.tokens = [int(self._noise(place, 2) * VOCABULARY) for place in range(BLOCK)]

    def take(self, hidden: Tensor) -> None:
        spec, params = self._spec, self._spec.diffusion
        share = (params.steps - self._step) / params.steps
        start, end = params.temperature_start, params.temperature_end
        scaled = SOFTCAP * (hidden.double() @ self._head.T / SOFTCAP).tanh()
        scaled /= (end + (start - end) * share) * (spec.sampling.temperature or 1.0)
        probability = scaled.softmax(-1)
        entropy = floats(-(probability * probability.log()).sum(-1))
        self.mean_entropy = sum(entropy) / BLOCK
        self.best = ints(probability.argmax(-1))
        self.accepted = self._accepted(entropy)
        self._predictions.append(self.best)
        last = self._predictions[-params.stability - 1 :]
        stable = len(last) == params.stability + 1 and all(one == self.best for one in last)
        sure = params.stop_entropy is not None and self.mean_entropy < params.stop_entropy
        self.done = (stable and sure) or self._step + 1 == params.steps
        self.tokens = [self._next(place, probability[place]) for place in range(BLOCK)]
        self.soft = (probability @ self._head * WIDTH**0.5).float()
        self._step += 1

    def _accepted(self, entropy: list[float]) -> list[bool]:
        before, accepted = 0.0, [False] * BLOCK
        for place in sorted(range(BLOCK), key=entropy.__getitem__):
            accepted[place] = before <= self._spec.diffusion.entropy_bound
            before += entropy[place]
        return accepted

    def _next(self, place: int, probability: Tensor) -> int:
        if not self.accepted[place]:
            return int(self._noise(place, 1) * VOCABULARY)
        if self._spec.sampling.temperature == 0.0:
            return self.best[place]
        return int((probability.cumsum(0) <= self._noise(place, 0)).sum())

    def _noise(self, place: int, draw: int) -> float:
        values = (self._spec.sampling.seed, self._spec.block_index, self._step, place)
        seed, block, step, position = (torch.tensor(value) for value in values)
        return float(uniform(seed, block, step, position, draw))


def new_denoiser(slots: int = 4) -> RenoisingDenoiser:
    head = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(0))
    return RenoisingDenoiser.allocate(CanvasRegisters.allocate(slots, BLOCK, 0, CPU), Head(head, SOFTCAP))


def open_canvas(denoiser: RenoisingDenoiser, slot: int, spec: CanvasSpec) -> None:
    denoiser.registers.open(slot, spec)
    denoiser.open(slot, spec)


def hidden_states(seed: int) -> Tensor:
    """[block, h], some positions surer than others."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BLOCK, WIDTH, generator=generator) * torch.linspace(0.5, 3.0, BLOCK)[:, None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of each canvas, what the registers hold after a step."""

    done: Tensor
    step: Tensor
    undecided: Tensor
    live: Tensor
    mean_entropy: Tensor


def take(denoiser: RenoisingDenoiser, slots: Sequence[int], hidden: Tensor) -> Outcome:
    """One step of the canvases in `slots`. hidden [c, block, h]."""
    registers = denoiser.registers
    denoiser.step(torch.tensor(slots), hidden, registers.traits_of(slots))
    integers = registers.state.integers[list(slots)]
    return Outcome(
        done=integers[:, Whole.ACTIVE] == 0,
        step=integers[:, Whole.STEP],
        undecided=integers[:, Whole.UNDECIDED],
        live=integers[:, Whole.LIVE],
        mean_entropy=registers.state.numbers[list(slots)][:, Real.MEAN_ENTROPY],
    )
