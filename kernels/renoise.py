"""One step of renoised canvases after the head: accept, fill the others with noise, stop (DiffusionGemma).

On a GPU two Triton launches do it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.canvas_state import CanvasState, Real, Whole, book_step
from easel.kernels.noise import uniform
from easel.kernels.row_stats import has_triton
from easel.kernels.soft_head import SoftStats

# Which of a position's random numbers fill it anew, and at first; number 0 draws its token.
RENOISE_DRAW, CANVAS_DRAW = 1, 2


@dataclass(frozen=True, slots=True)
class RenoiseState:
    """What renoised canvases keep besides the registers, a row per slot."""

    soft: Tensor  # [slots, block, h]  dtype of the embedding; expected embeddings, for the next step
    steps: Tensor  # [slots]  int64  most steps of a block
    hottest: Tensor  # [slots]  float32  factor of the temperature before the first step
    coolest: Tensor  # [slots]  float32  after the last one; in between it is linear
    stability: Tensor  # [slots]  int64  steps back whose predictions must be the present ones
    unchanged: Tensor  # [slots]  int64  steps in a row that predicted what the step before did

    @classmethod
    def allocate(cls, slots: int, block_length: int, embedding: Tensor) -> "RenoiseState":
        """For soft embeddings of the width and dtype of embedding [vocabulary, h].

        A slot that holds no canvas yet has a temperature as well, since recorded steps are padded with one.
        """

        def filled(value: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.full((slots,), value, dtype=dtype, device=embedding.device)

        return cls(
            soft=embedding.new_zeros(slots, block_length, embedding.shape[1]),
            steps=filled(1),
            hottest=filled(1, torch.float32),
            coolest=filled(1, torch.float32),
            stability=filled(0),
            unchanged=filled(0),
        )

    def tensors(self) -> dict[str, Tensor]:
        return {
            "soft": self.soft,
            "steps": self.steps,
            "hottest": self.hottest,
            "coolest": self.coolest,
            "stability": self.stability,
            "unchanged": self.unchanged,
        }


def renoise(state: CanvasState, own: RenoiseState, at: Tensor, stats: SoftStats, vocabulary: int) -> None:
    """Apply what the head found to the canvases of slots `at` [c] int64, all different.

    stats: of c·block positions; noise is uniform over `vocabulary` tokens. Every step decides anew: the
    surest positions hold what was drawn, the others noise, and all of them the most probable tokens once
    the canvas is finished, which then is no longer active. One that was not active stays as it was, bit
    for bit. Nothing waits for the device. On a GPU slots that are not active may recur.
    """
    if has_triton(stats.entropy):
        from easel.kernels.renoise_triton import fused_renoise  # noqa: PLC0415  only where there is Triton

        fused_renoise(state, own, at, stats, vocabulary)
        return
    shape = len(at), state.block_length
    integers, numbers = state.integers.index_select(0, at), state.numbers.index_select(0, at)
    best, entropy = stats.best.view(shape), stats.entropy.view(shape)
    mean = entropy.mean(-1)
    stopped, unchanged = _stable(state, own, at, best, integers)
    stopped &= mean < numbers[:, Real.STOP_ENTROPY]
    stopped |= integers[:, Whole.STEP] + 1 >= own.steps.index_select(0, at)
    accepted = within_bound(entropy, numbers[:, Real.ENTROPY_BOUND])
    noise = noise_tokens(integers, state.block_length, RENOISE_DRAW, vocabulary)
    drawn = torch.where(accepted, stats.token.view(shape), noise)
    active = integers[:, Whole.ACTIVE] > 0
    for register, values in (
        (state.tokens, torch.where(stopped[:, None], best, drawn)),
        (state.decided, accepted),
        (state.predicted, best),
        (state.confidence, stats.confidence.view(shape)),
        (own.soft, stats.soft.view(*shape, own.soft.shape[2])),
        (own.unchanged, unchanged),
    ):
        was = active.view(-1, *[1] * (register.ndim - 1))
        register.index_copy_(0, at, torch.where(was, values, register.index_select(0, at)))
    book_step(
        *(state, at, integers, numbers),
        done=stopped,
        undecided=(~accepted).sum(-1),
        live=torch.full_like(at, state.block_length),
        mean=mean,
    )


def within_bound(entropy: Tensor, bound: Tensor) -> Tensor:
    """The least uncertain positions whose entropies, the last one's left out, add up to at most the bound.

    entropy [c, block] and bound [c], nats. At least one position of each canvas is accepted
    (Ben-Hamu et al., 2025: then they are nearly independent).
    """
    ordered, order = entropy.sort(dim=-1, stable=True)
    taken = ordered.cumsum(-1) - ordered <= bound[:, None]
    return torch.zeros_like(taken).scatter_(-1, order, taken)


def noise_tokens(integers: Tensor, block_length: int, draw: int, vocabulary: int) -> Tensor:
    """[c, block] int64, uniform over the vocabulary; see `position_noise`."""
    return (position_noise(integers, block_length, draw) * vocabulary).long()


def position_noise(integers: Tensor, block_length: int, draw: int) -> Tensor:
    """[c, block] float64 in (0, 1): the present step's numbers of canvases of these integers [c, columns]."""
    position = torch.arange(block_length, device=integers.device).expand(len(integers), -1)
    seed, block, step = (
        integers[:, column, None].expand_as(position)
        for column in (Whole.SEED, Whole.BLOCK_INDEX, Whole.STEP)
    )
    if has_triton(integers):
        from easel.kernels.noise_triton import fused_uniform  # noqa: PLC0415  only where there is Triton

        found = torch.empty(position.shape, dtype=torch.float64, device=position.device)
        fused_uniform(seed, block, step, position, draw, found)
        return found
    return uniform(seed, block, step, position, draw)


def _stable(
    state: CanvasState, own: RenoiseState, at: Tensor, best: Tensor, integers: Tensor
) -> tuple[Tensor, Tensor]:
    """[c] bool: the predictions are those of the last `stability` steps, all of them; and how many."""
    before = state.predicted.index_select(0, at)
    same = (best == before).all(-1) & (integers[:, Whole.STEP] > 0)
    unchanged = torch.where(same, own.unchanged.index_select(0, at) + 1, 0)
    return unchanged >= own.stability.index_select(0, at), unchanged
