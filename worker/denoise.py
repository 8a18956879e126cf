"""What happens to masked canvases between the head and the next step: draw, decide, edit, stop."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from easel.kernels.canvas_state import Real, Whole
from easel.kernels.commit import Found, Gathered, StepTraits, commit
from easel.kernels.head import HeadStats, Sampling, head_stats
from easel.kernels.noise import uniform
from easel.kernels.row_stats import row_stats
from easel.kernels.tiles import Draw, Head, RowStats
from easel.scheduler.messages import CanvasSpec
from easel.worker.registers import CanvasRegisters

TOKEN_DRAW = 0  # which of a position's random numbers picks its token


class Denoiser(Protocol):
    """What a model family does with a canvas. It updates the registers, and its own if it has any."""

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """Complete a canvas that the registers have just opened."""
        ...

    def conditioning(self, slots: Tensor) -> Tensor | None:
        """What the next step of the canvases in `slots` [c] is conditioned on, [c, block, h]."""
        ...

    def step(self, at: Tensor, hidden: Tensor, traits: StepTraits) -> None:
        """One denoising step of the active ones among the canvases of slots `at` [c] int64, all different.

        hidden [c, block, h]. What came of it is in the registers. A canvas that is not active stays
        as it is.
        """
        ...

    def bytes_per_slot(self) -> int:
        """What it keeps of each canvas besides the registers."""
        ...


@dataclass(frozen=True, slots=True)
class MaskedDenoiser:
    """Undecided positions hold the mask; a decided one stays, unless tokens are edited."""

    registers: CanvasRegisters
    head: Tensor  # [vocabulary, h]
    eos_token_ids: Tensor  # [k]  int64
    plain_confidence: bool = False  # of drawn tokens: under the model's distribution, as LLaDA has it
    fixed_shapes: bool = False  # compute with all positions, so that nothing waits for the device

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """The registers are all there is."""

    def conditioning(self, slots: Tensor) -> None:
        """These models are conditioned on tokens only."""

    def bytes_per_slot(self) -> int:
        return 0

    def step(self, at: Tensor, hidden: Tensor, traits: StepTraits) -> None:
        canvases, rows = Gathered.of(self.registers.state, at), hidden.flatten(0, 1)
        asked = canvases.asked(traits)
        if self.fixed_shapes and not traits.cut:
            found = self._everywhere(canvases, rows, asked, traits)
        else:
            found = self._where(canvases, rows, asked, traits)
        commit(self.registers.state, canvases, found, self.eos_token_ids, traits)

    def _where(self, canvases: Gathered, rows: Tensor, asked: Tensor, traits: StepTraits) -> Found:
        """The head of the positions asked about only; how many they are is asked of the device."""
        places = asked.flatten().nonzero().squeeze(-1)
        stats = head_stats(
            rows if len(places) == len(rows) else rows.index_select(0, places),
            self.head,
            self.registers.mask_token_id,
            self._sampling(canvases, places) if traits.sampled else None,
            plain_confidence=self.plain_confidence,
        )
        return _spread(stats, places, asked)

    def _everywhere(self, canvases: Gathered, rows: Tensor, asked: Tensor, traits: StepTraits) -> Found:
        """The same from as many rows as there are positions; those not asked about are passed over."""
        found = RowStats.empty(len(rows), rows.device)
        confidence = found.plain if self.plain_confidence else found.probability
        for column in (found.token, found.entropy, confidence):
            column.zero_()
        draw = None
        if traits.sampled:
            sampling = self._sampling(canvases, torch.arange(len(rows), device=rows.device))
            draw = Draw(sampling.temperature, sampling.noise)
        head = Head(self.head, forbidden=self.registers.mask_token_id)
        row_stats(rows, head, None, draw, active=asked.flatten(), out=found)
        return Found(found.token.view_as(asked), confidence.view_as(asked), found.entropy.view_as(asked))

    def _sampling(self, canvases: Gathered, places: Tensor) -> Sampling:
        """How the positions `places` [n] of the flattened canvases are drawn."""
        block = self.registers.block_length
        row, position = places // block, places % block
        integers, numbers = canvases.integers.index_select(0, row), canvases.numbers.index_select(0, row)
        seed, block_index, step = (
            integers[:, column] for column in (Whole.SEED, Whole.BLOCK_INDEX, Whole.STEP)
        )
        return Sampling(
            temperature=numbers[:, Real.TEMPERATURE].contiguous(),
            top_k=integers[:, Whole.TOP_K],
            top_p=numbers[:, Real.TOP_P],
            noise=uniform(seed, block_index, step, position, TOKEN_DRAW),
        )


def _spread(stats: HeadStats, places: Tensor, asked: Tensor) -> Found:
    """Statistics [n] of `places`, put back where they belong among all positions [c, block]."""
    if len(places) == asked.numel():
        return Found(*(part.view(asked.shape) for part in (stats.token, stats.confidence, stats.entropy)))

    def spread(values: Tensor) -> Tensor:
        whole = torch.zeros(asked.numel(), dtype=values.dtype, device=asked.device)
        return whole.index_copy_(0, places, values).view(asked.shape)

    return Found(spread(stats.token), spread(stats.confidence), spread(stats.entropy))
