"""Denoising of DiffusionGemma's canvases: undecided positions hold noise, and none is decided for good."""

from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from easel.kernels.canvas_state import Real, Whole, book_step
from easel.kernels.commit import StepTraits
from easel.kernels.noise import uniform
from easel.kernels.soft_head import SoftDraw, SoftStats, soft_head
from easel.scheduler.messages import CanvasSpec
from easel.worker.denoise import TOKEN_DRAW
from easel.worker.models.backbone import Backbone
from easel.worker.registers import CanvasRegisters

RENOISE_DRAW, CANVAS_DRAW = 1, 2  # which of a position's random numbers fill it anew, and at first


@runtime_checkable
class SoftcappedHead(Protocol):
    """A head that is also the embedding."""

    @property
    def head(self) -> Tensor: ...  # [vocabulary, h]
    @property
    def softcap(self) -> float: ...


@dataclass(frozen=True, slots=True)
class RenoisingDenoiser:
    """Every step draws all positions anew, keeps the surest, and fills the others with noise.

    What is emitted in the end are the most probable tokens, not the canvas.
    """

    registers: CanvasRegisters
    head: Tensor  # [vocabulary, h]; the embedding
    softcap: float
    soft: Tensor  # [slots, block, h]  dtype of the head; expected embeddings, for the next step
    steps: Tensor  # [slots]  int64  most steps of a block
    hottest: Tensor  # [slots]  float32  factor of the temperature before the first step
    coolest: Tensor  # [slots]  float32  after the last one; in between it is linear
    stability: Tensor  # [slots]  int64  steps back whose predictions must be the present ones
    unchanged: Tensor  # [slots]  int64  steps in a row that predicted what the step before did

    @classmethod
    def allocate(cls, registers: CanvasRegisters, model: Backbone) -> "RenoisingDenoiser":
        """State for as many slots as the registers have. Raises TypeError for a model without a softcap."""
        if not isinstance(model, SoftcappedHead):
            raise TypeError(f"{type(model).__name__} has no softcap, which a renoising model's head needs")
        slots, head = registers.slots, model.head

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=head.device)

        return cls(
            registers=registers,
            head=head,
            softcap=model.softcap,
            soft=zeros(registers.block_length, head.shape[1], dtype=head.dtype),
            steps=zeros(),
            hottest=zeros(dtype=torch.float32),
            coolest=zeros(dtype=torch.float32),
            stability=zeros(),
            unchanged=zeros(),
        )

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """Fill the canvas with random tokens, and forget all that the slot held before."""
        diffusion = spec.diffusion
        self.soft[slot] = 0.0
        self.steps[slot] = diffusion.steps
        self.hottest[slot] = diffusion.temperature_start
        self.coolest[slot] = diffusion.temperature_end
        self.stability[slot] = diffusion.stability
        self.unchanged[slot] = 0
        at = torch.tensor([slot], device=self.head.device)
        self.registers.state.tokens[slot] = self._noise_tokens(self._integers(at), CANVAS_DRAW)[0]

    def conditioning(self, slots: Tensor) -> Tensor:
        """Soft embeddings [c, block, h] that the last step of the canvases in `slots` [c] left."""
        return self.soft[slots]

    def bytes_per_slot(self) -> int:
        """What it keeps of each canvas besides the registers."""
        tensors = [object.__getattribute__(self, field.name) for field in fields(self)]
        kept = [value for value in tensors if isinstance(value, Tensor) and value is not self.head]
        return sum(tensor.nbytes // len(tensor) for tensor in kept)

    def step(self, at: Tensor, hidden: Tensor, traits: StepTraits) -> None:
        """One denoising step of the active ones among the canvases of slots `at`. hidden [c, block, h]."""
        state = self.registers.state
        integers, numbers = self._integers(at), state.numbers.index_select(0, at)
        stats = self._head(at, hidden, integers, numbers, traits)
        best, entropy = (found.view(hidden.shape[:2]) for found in (stats.best, stats.entropy))
        mean = entropy.mean(-1)
        stopped, unchanged = self._stable(at, best, integers)
        stopped &= mean < numbers[:, Real.STOP_ENTROPY]
        stopped |= integers[:, Whole.STEP] + 1 >= self.steps.index_select(0, at)
        accepted = within_bound(entropy, numbers[:, Real.ENTROPY_BOUND])
        drawn = torch.where(accepted, stats.token.view_as(best), self._noise_tokens(integers, RENOISE_DRAW))
        tokens = torch.where(stopped[:, None], best, drawn)
        active = integers[:, Whole.ACTIVE] > 0
        for register, values in (
            (state.tokens, tokens),
            (state.decided, accepted),
            (state.predicted, best),
            (state.confidence, stats.confidence.view_as(entropy)),
            (self.soft, stats.soft.view_as(hidden)),
            (self.unchanged, unchanged),
        ):
            was = active.view(-1, *[1] * (register.ndim - 1))
            register.index_copy_(0, at, torch.where(was, values, register.index_select(0, at)))
        book_step(
            *(state, at, integers, numbers),
            done=stopped,
            undecided=(~accepted).sum(-1),
            live=torch.full_like(at, self.registers.block_length),
            mean=mean,
        )

    def _integers(self, at: Tensor) -> Tensor:
        return self.registers.state.integers.index_select(0, at)

    def _head(
        self, at: Tensor, hidden: Tensor, integers: Tensor, numbers: Tensor, traits: StepTraits
    ) -> SoftStats:
        block = self.registers.block_length
        sampling, steps = numbers[:, Real.TEMPERATURE], self.steps.index_select(0, at)
        left = (steps - integers[:, Whole.STEP]) / steps  # 1 at the first step
        hottest, coolest = self.hottest.index_select(0, at), self.coolest.index_select(0, at)
        schedule = coolest + (hottest - coolest) * left
        # At temperature 0 nothing is drawn, but what is predicted keeps the schedule's temperature.
        temperature = schedule * torch.where(sampling > 0, sampling, 1.0)
        cuts = None
        if traits.cut:
            cuts = (
                integers[:, Whole.TOP_K].repeat_interleave(block),
                numbers[:, Real.TOP_P].repeat_interleave(block),
            )
        return soft_head(
            hidden.flatten(0, 1),
            self.head,
            self.softcap,
            temperature.repeat_interleave(block),
            SoftDraw(
                noise=self._noise(integers, TOKEN_DRAW).flatten(),
                sampled=(sampling > 0).repeat_interleave(block),
                cuts=cuts,
            ),
        )

    def _stable(self, at: Tensor, best: Tensor, integers: Tensor) -> tuple[Tensor, Tensor]:
        """[c] bool: the predictions are those of the last `stability` steps, all of them; and how many."""
        before = self.registers.state.predicted.index_select(0, at)
        same = (best == before).all(-1) & (integers[:, Whole.STEP] > 0)
        unchanged = torch.where(same, self.unchanged.index_select(0, at) + 1, 0)
        return unchanged >= self.stability.index_select(0, at), unchanged

    def _noise_tokens(self, integers: Tensor, draw: int) -> Tensor:
        """[c, block] int64, uniform over the vocabulary."""
        return (self._noise(integers, draw) * len(self.head)).long()

    def _noise(self, integers: Tensor, draw: int) -> Tensor:
        """[c, block] float64 in (0, 1): the present step's numbers of canvases of these `integers`."""
        position = torch.arange(self.registers.block_length, device=integers.device).expand(len(integers), -1)
        seed, block, step = (
            integers[:, column, None].expand_as(position)
            for column in (Whole.SEED, Whole.BLOCK_INDEX, Whole.STEP)
        )
        return uniform(seed, block, step, position, draw)


def within_bound(entropy: Tensor, bound: Tensor) -> Tensor:
    """The least uncertain positions whose entropies, the last one's left out, add up to at most the bound.

    entropy [c, block] and bound [c], nats. At least one position of each canvas is accepted
    (Ben-Hamu et al., 2025: then they are nearly independent).
    """
    ordered, order = entropy.sort(dim=-1, stable=True)
    taken = ordered.cumsum(-1) - ordered <= bound[:, None]
    return torch.zeros_like(taken).scatter_(-1, order, taken)
