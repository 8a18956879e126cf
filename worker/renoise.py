"""Denoising of DiffusionGemma's canvases: undecided positions hold noise, and none is decided for good."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from easel.kernels.canvas_state import Real, Whole
from easel.kernels.commit import StepTraits
from easel.kernels.renoise import CANVAS_DRAW, RenoiseState, noise_tokens, position_noise, renoise
from easel.kernels.soft_head import SoftDraw, SoftStats, soft_head
from easel.scheduler.messages import CanvasSpec
from easel.worker.denoise import TOKEN_DRAW
from easel.worker.models.backbone import Backbone
from easel.worker.registers import CanvasRegisters


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
    own: RenoiseState

    @classmethod
    def allocate(cls, registers: CanvasRegisters, model: Backbone) -> "RenoisingDenoiser":
        """State for as many slots as the registers have. Raises TypeError for a model without a softcap."""
        if not isinstance(model, SoftcappedHead):
            raise TypeError(f"{type(model).__name__} has no softcap, which a renoising model's head needs")
        own = RenoiseState.allocate(registers.slots, registers.block_length, model.head)
        return cls(registers, model.head, model.softcap, own)

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """Fill the canvas with random tokens, and forget all that the slot held before."""
        diffusion, own = spec.diffusion, self.own
        own.soft[slot] = 0.0
        own.steps[slot] = diffusion.steps
        own.hottest[slot] = diffusion.temperature_start
        own.coolest[slot] = diffusion.temperature_end
        own.stability[slot] = diffusion.stability
        own.unchanged[slot] = 0
        integers = self._integers(torch.tensor([slot], device=self.head.device))
        tokens = noise_tokens(integers, self.registers.block_length, CANVAS_DRAW, len(self.head))
        self.registers.state.tokens[slot] = tokens[0]

    def conditioning(self, slots: Tensor) -> Tensor:
        """Soft embeddings [c, block, h] that the last step of the canvases in `slots` [c] left."""
        return self.own.soft[slots]

    def bytes_per_slot(self) -> int:
        """What it keeps of each canvas besides the registers."""
        return sum(tensor.nbytes // len(tensor) for tensor in self.own.tensors().values())

    def step(self, at: Tensor, hidden: Tensor, traits: StepTraits) -> None:
        """One denoising step of the active ones among the canvases of slots `at`. hidden [c, block, h]."""
        renoise(self.registers.state, self.own, at, self._head(at, hidden, traits), len(self.head))

    def _integers(self, at: Tensor) -> Tensor:
        return self.registers.state.integers.index_select(0, at)

    def _head(self, at: Tensor, hidden: Tensor, traits: StepTraits) -> SoftStats:
        own, block = self.own, self.registers.block_length
        integers, numbers = self._integers(at), self.registers.state.numbers.index_select(0, at)
        sampling, steps = numbers[:, Real.TEMPERATURE], own.steps.index_select(0, at)
        left = (steps - integers[:, Whole.STEP]) / steps  # 1 at the first step
        hottest, coolest = own.hottest.index_select(0, at), own.coolest.index_select(0, at)
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
                noise=position_noise(integers, block, TOKEN_DRAW).flatten(),
                sampled=(sampling > 0).repeat_interleave(block),
                cuts=cuts,
            ),
        )
