"""Denoising of DiffusionGemma's canvases: undecided positions hold noise, and none is decided for good."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from easel.kernels.noise import uniform
from easel.kernels.soft_head import SoftDraw, SoftStats, soft_head
from easel.scheduler.messages import CanvasSpec
from easel.worker.denoise import TOKEN_DRAW, Outcome
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
    cuts: list[bool]  # of which slots the distribution that is drawn from is cut

    @classmethod
    def allocate(cls, registers: CanvasRegisters, model: Backbone) -> "RenoisingDenoiser":
        """State for as many slots as the registers have. Raises TypeError for a model without a softcap."""
        if not isinstance(model, SoftcappedHead):
            raise TypeError(f"{type(model).__name__} has no softcap, which a renoising model's head needs")
        slots, head = len(registers.tokens), model.head

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
            cuts=[False] * slots,
        )

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """Fill the canvas with random tokens, and forget all that the slot held before."""
        diffusion, sampling = spec.diffusion, spec.sampling
        self.soft[slot] = 0.0
        self.steps[slot] = diffusion.steps
        self.hottest[slot] = diffusion.temperature_start
        self.coolest[slot] = diffusion.temperature_end
        self.stability[slot] = diffusion.stability
        self.unchanged[slot] = 0
        self.cuts[slot] = sampling.top_k > 0 or sampling.top_p < 1.0
        at = torch.tensor([slot], device=self.head.device)
        self.registers.tokens[slot] = self._noise_tokens(at, CANVAS_DRAW)[0]

    def conditioning(self, slots: Tensor) -> Tensor:
        """Soft embeddings [c, block, h] that the last step of the canvases in `slots` [c] left."""
        return self.soft[slots]

    def bytes_per_slot(self) -> int:
        """What it keeps of each canvas besides the registers."""
        tensors = [object.__getattribute__(self, field.name) for field in fields(self)]
        kept = [value for value in tensors if isinstance(value, Tensor) and value is not self.head]
        return sum(tensor.nbytes // len(tensor) for tensor in kept)

    def step(self, slots: Sequence[int], hidden: Tensor) -> Outcome:
        """One denoising step. hidden [c, block, h], in the order of `slots`."""
        registers = self.registers
        at = torch.tensor(slots, dtype=torch.int64, device=hidden.device)
        stats = self._head(slots, at, hidden)
        best, entropy = (found.view(hidden.shape[:2]) for found in (stats.best, stats.entropy))
        mean_entropy = entropy.mean(-1)
        done = self._stable(at, best) & (mean_entropy < registers.stop_entropy[at])
        done |= registers.step[at] + 1 >= self.steps[at]
        accepted = within_bound(entropy, registers.entropy_bound[at])
        drawn = torch.where(accepted, stats.token.view_as(best), self._noise_tokens(at, RENOISE_DRAW))
        registers.tokens[at] = torch.where(done[:, None], best, drawn)
        registers.decided[at] = accepted
        registers.predicted[at] = best
        registers.confidence[at] = stats.confidence.view_as(entropy)
        registers.step[at] += 1
        self.soft[at] = stats.soft.view_as(hidden)
        return Outcome(
            done=done,
            undecided=(~accepted).sum(-1),
            mean_entropy=mean_entropy,
            live=torch.full_like(at, registers.block_length),
        )

    def _head(self, slots: Sequence[int], at: Tensor, hidden: Tensor) -> SoftStats:
        registers, block = self.registers, self.registers.block_length
        sampling = registers.temperature[at]
        left = (self.steps[at] - registers.step[at]) / self.steps[at]  # 1 at the first step
        schedule = self.coolest[at] + (self.hottest[at] - self.coolest[at]) * left
        # At temperature 0 nothing is drawn, but what is predicted keeps the schedule's temperature.
        temperature = schedule * torch.where(sampling > 0, sampling, 1.0)
        cuts = None
        if any(self.cuts[slot] for slot in slots):
            cuts = (
                registers.top_k[at].repeat_interleave(block),
                registers.top_p[at].repeat_interleave(block),
            )
        return soft_head(
            hidden.flatten(0, 1),
            self.head,
            self.softcap,
            temperature.repeat_interleave(block),
            SoftDraw(
                noise=self._noise(at, TOKEN_DRAW).flatten(),
                sampled=(sampling > 0).repeat_interleave(block),
                cuts=cuts,
            ),
        )

    def _stable(self, at: Tensor, best: Tensor) -> Tensor:
        """[c] bool: the predictions are those of the last `stability` steps, all of them."""
        registers = self.registers
        same = (best == registers.predicted[at]).all(-1) & (registers.step[at] > 0)
        self.unchanged[at] = torch.where(same, self.unchanged[at] + 1, 0)
        return self.unchanged[at] >= self.stability[at]

    def _noise_tokens(self, at: Tensor, draw: int) -> Tensor:
        """[c, block] int64, uniform over the vocabulary."""
        return (self._noise(at, draw) * len(self.head)).long()

    def _noise(self, at: Tensor, draw: int) -> Tensor:
        """[c, block] float64 in (0, 1): the present step's numbers of the canvases in slots `at`."""
        registers = self.registers
        position = torch.arange(registers.block_length, device=at.device).expand(len(at), -1)
        seed, block, step = (
            of_slot[at][:, None].expand_as(position)
            for of_slot in (registers.seed, registers.block_index, registers.step)
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
