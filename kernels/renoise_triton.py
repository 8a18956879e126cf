# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""The step of renoised canvases after the head in two Triton launches: soft embeddings, and all the rest.

The first takes a program for each part of a position's embedding, the second one for each canvas, which
reads and writes the registers in place. As in kernels/commit_triton.py nothing is sorted.
"""

import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.canvas_state import CanvasState
from easel.kernels.commit_triton import (
    ACTIVE,
    BLOCK_INDEX,
    COMPARED,
    ENTROPY_LIMIT,
    ENTROPY_SUM,
    REALS,
    SEED,
    STEP,
    STOP_ENTROPY,
    WHOLES,
    book,
    require_found,
    warps_of,
)
from easel.kernels.noise_triton import uniform_numbers
from easel.kernels.renoise import RENOISE_DRAW, RenoiseState
from easel.kernels.soft_head import SoftStats

KEPT = 1024  # numbers of a position's embedding that a program copies
DRAW = tl.constexpr(RENOISE_DRAW)


def fused_renoise(
    state: CanvasState, own: RenoiseState, at: Tensor, stats: SoftStats, vocabulary: int
) -> None:
    """`renoise`; of the canvases of slots `at` those that are active all differ.

    Raises ValueError for tensors that are not dense, or not of the registers' shapes and dtypes.
    """
    count, block = len(at), state.block_length
    found = {"best": stats.best, "token": stats.token, "confidence": stats.confidence}
    require_found(found | {"entropy": stats.entropy}, count, block)
    _require_soft(own.soft, stats.soft, count * block)
    if not count:
        return
    width = stats.soft.shape[1]
    _keep[(count * block, triton.cdiv(width, KEPT))](
        *(stats.soft, own.soft, state.integers, at),
        block=block,
        width=width,
        columns=min(KEPT, triton.next_power_of_2(width)),
        enable_fp_fusion=True,  # also what is chosen by default; triton 3.9 warns where it is not said
    )
    padded = triton.next_power_of_2(block)
    _renoise[(count,)](
        *(state.tokens, state.decided, state.predicted, state.confidence, state.integers, state.numbers),
        *(own.steps, own.stability, own.unchanged, at),
        *(stats.best, stats.token, stats.confidence, stats.entropy, vocabulary),
        block=block,
        padded=padded,
        num_warps=warps_of(padded),
        enable_fp_fusion=True,
    )


def _require_soft(kept: Tensor, soft: Tensor, positions: int) -> None:
    if (
        soft.shape != (positions, kept.shape[2])
        or soft.dtype != kept.dtype
        or not (soft.is_contiguous() and kept.is_contiguous())
    ):
        raise ValueError(
            f"soft {tuple(soft.shape)} {soft.dtype}, strides {soft.stride()}: there have to be {positions} "
            f"dense rows as wide as those kept, {tuple(kept.shape)} {kept.dtype}, strides {kept.stride()}"
        )


@triton.jit
def _keep(soft, kept, integers, at, block: tl.constexpr, width: tl.constexpr, columns: tl.constexpr):
    """Part of a position's embedding, for the next step; before the canvas can be found to be finished."""
    position = tl.program_id(0)
    slot = tl.load(at + position // block)
    if tl.load(integers + slot * WHOLES + ACTIVE) > 0:
        column = tl.program_id(1) * columns + tl.arange(0, columns)
        values = tl.load(soft + position.to(tl.int64) * width + column, mask=column < width)
        row = slot * block + position % block
        tl.store(kept + row * width + column, values, mask=column < width)


@triton.jit(do_not_specialize=("vocabulary",))
def _renoise(
    tokens, decided, predicted, confidence, integers, numbers, steps, stability, unchanged, at,
    found_best, found_token, found_confidence, found_entropy, vocabulary,
    block: tl.constexpr, padded: tl.constexpr,
):  # fmt: skip
    """Arguments before `at` are registers."""
    row, slot = tl.program_id(0).to(tl.int64), tl.load(at + tl.program_id(0))
    integers += slot * WHOLES
    numbers += slot * REALS
    if tl.load(integers + ACTIVE) > 0:
        place = tl.arange(0, padded)
        there, own, seen = place < block, slot * block + place, row * block + place
        best = tl.load(found_best + seen, mask=there, other=0)
        entropy = tl.load(found_entropy + seen, mask=there, other=0.0)
        step = tl.load(integers + STEP)
        mean = tl.sum(entropy, 0) / block
        changed = there & (best != tl.load(predicted + own, mask=there, other=0))
        same = (tl.sum(changed.to(tl.int32), 0) == 0) & (step > 0)
        stood = tl.where(same, tl.load(unchanged + slot) + 1, 0)
        stopped = (stood >= tl.load(stability + slot)) & (mean < tl.load(numbers + STOP_ENTROPY))
        stopped = stopped | (step + 1 >= tl.load(steps + slot))
        spent = _spent(place, entropy, found_entropy + row * block, block, padded)
        accepted = there & (spent - entropy <= tl.load(numbers + ENTROPY_LIMIT))
        number = uniform_numbers(tl.load(integers + SEED), tl.load(integers + BLOCK_INDEX), step, place, DRAW)
        noise = (number * vocabulary).to(tl.int64)
        drawn = tl.where(accepted, tl.load(found_token + seen, mask=there, other=0), noise)
        entropy_sum = tl.load(numbers + ENTROPY_SUM) + mean
        tl.debug_barrier()  # all that is read of the registers has been read
        tl.store(tokens + own, tl.where(stopped, best, drawn), mask=there)
        tl.store(decided + own, accepted, mask=there)
        tl.store(predicted + own, best, mask=there)
        tl.store(confidence + own, tl.load(found_confidence + seen, mask=there, other=0.0), mask=there)
        tl.store(unchanged + slot, stood)
        still_open = block - tl.sum(accepted.to(tl.int64), 0)
        book(integers, numbers, stopped, step, still_open, block, mean, entropy_sum)


@triton.jit
def _spent(place, entropy, all_entropy, block: tl.constexpr, padded: tl.constexpr):
    """The entropies up to each position's in ascending order, its own included, [padded] float32.

    Among equals the earlier position comes first.
    """
    # In float64, so that the sum is the one of any order.
    spent = tl.zeros((padded,), tl.float64)
    for start in range(0, block, COMPARED):
        other = start + tl.arange(0, COMPARED)
        its = tl.load(all_entropy + other, mask=other < block, other=float("inf"))
        upto = (its[None, :] == entropy[:, None]) & (other[None, :] <= place[:, None])
        upto = (its[None, :] < entropy[:, None]) | upto
        spent += tl.sum(tl.where(upto, its[None, :], 0.0).to(tl.float64), 1)
    return spent.to(tl.float32)
