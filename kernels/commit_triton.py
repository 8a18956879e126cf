# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""The step of masked canvases after the head in one Triton launch, a program a canvas.

Registers are read and written in place. Nothing is sorted: a position's rank is the number of those that
come before it, so every position is compared with every other one, a few of them at a time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.canvas_state import CanvasState, Real, Whole
from easel.kernels.commit import Found, StepTraits
from easel.kernels.commit_rules import Rule

COMPARED = tl.constexpr(16)  # positions that all others are compared with at a time
WHOLES, REALS = tl.constexpr(len(Whole)), tl.constexpr(len(Real))
ACTIVE, STEP, UNDECIDED, LIVE, FIRST, LIMIT, EDITS_LEFT, RULE, BLOCK_INDEX, SEED = (
    tl.constexpr(int(column))
    for column in (
        *(Whole.ACTIVE, Whole.STEP, Whole.UNDECIDED, Whole.LIVE, Whole.FIRST, Whole.LIMIT),
        *(Whole.EDITS_LEFT, Whole.RULE, Whole.BLOCK_INDEX, Whole.SEED),
    )
)
MEAN_ENTROPY, ENTROPY_SUM, THRESHOLD, ENTROPY_LIMIT, STOP_ENTROPY, EDIT_THRESHOLD = (
    tl.constexpr(int(column))
    for column in (
        *(Real.MEAN_ENTROPY, Real.ENTROPY_SUM, Real.THRESHOLD, Real.ENTROPY_BOUND),
        *(Real.STOP_ENTROPY, Real.EDIT_THRESHOLD),
    )
)
CONFIDENCE_THRESHOLD, ENTROPY_BOUND, SEQUENTIAL = (
    tl.constexpr(int(rule)) for rule in (Rule.CONFIDENCE_THRESHOLD, Rule.ENTROPY_BOUND, Rule.SEQUENTIAL)
)


def fused_commit(
    state: CanvasState, at: Tensor, found: Found, eos_token_ids: Tensor, traits: StepTraits
) -> None:
    """`commit` to the canvases of slots `at` [c] int64, of which those that are active all differ.

    A canvas follows the rule in its registers. Raises ValueError for tensors that are not dense or not of
    the registers' shapes and dtypes.
    """
    count, block = len(at), state.block_length
    require_found(
        {"token": found.token, "confidence": found.confidence, "entropy": found.entropy}, count, block
    )
    if not count:
        return
    padded = triton.next_power_of_2(block)
    _commit[(count,)](
        *state.tensors().values(),
        *(at, found.token, found.confidence, found.entropy, eos_token_ids, len(eos_token_ids)),
        *(int(traits.settles), int(traits.edits), int(traits.partial), int(traits.shown)),
        block=block,
        padded=padded,
        num_warps=warps_of(padded),
        enable_fp_fusion=True,  # also what is chosen by default; triton 3.9 warns where it is not said
    )


def warps_of(padded: int) -> int:
    """How many warps a program has that compares so many positions."""
    return min(max(padded // 32, 1), 8)


def require_found(found: dict[str, Tensor], count: int, block: int) -> None:
    """Raise ValueError unless they are dense, of count canvases of `block` positions, tokens int64."""
    for name, tensor in found.items():
        dtype = torch.float32 if name in {"confidence", "entropy"} else torch.int64
        if tensor.numel() != count * block or tensor.dtype != dtype or not tensor.is_contiguous():
            raise ValueError(
                f"{name} {tuple(tensor.shape)} {tensor.dtype}, strides {tensor.stride()}: there have to be "
                f"{count} canvases of {block} positions, dense, {dtype}"
            )


@triton.jit(do_not_specialize=("eos_count", "settles", "edits", "partial", "shown"))
def _commit(
    tokens, decided, predicted, confidence, live, quotas, integers, numbers,
    at, found_token, found_confidence, found_entropy, eos_token_ids, eos_count,
    settles, edits, partial, shown, block: tl.constexpr, padded: tl.constexpr,
):  # fmt: skip
    """Arguments that are not found are registers."""
    row, slot = tl.program_id(0).to(tl.int64), tl.load(at + tl.program_id(0))
    integers += slot * WHOLES
    numbers += slot * REALS
    if tl.load(integers + ACTIVE) > 0:
        place = tl.arange(0, padded)
        there, own, seen = place < block, slot * block + place, row * block
        undecided = there & (tl.load(decided + own, mask=there, other=1) == 0)
        token = tl.load(found_token + seen + place, mask=there, other=0)
        sure = tl.load(found_confidence + seen + place, mask=there, other=0.0)
        entropy = tl.load(found_entropy + seen + place, mask=there, other=0.0)
        was = tl.load(tokens + own, mask=there, other=0)
        step, first, limit = tl.load(integers + STEP), tl.load(integers + FIRST), tl.load(integers + LIMIT)
        opened = tl.sum(undecided.to(tl.int64), 0)
        mean = tl.sum(tl.where(undecided, entropy, 0.0), 0) / tl.maximum(opened, 1).to(tl.float32)
        # A step beyond the schedule's has the last one's quota.
        quota = tl.load(quotas + slot * block + tl.minimum(step, block - 1))
        # Of a canvas that is settled all are taken.
        settled = (mean < tl.load(numbers + STOP_ENTROPY)) & (settles != 0)
        quota = tl.where(settled, block, quota)
        accepted = undecided & _taken(
            place, undecided, sure, entropy, tl.load(integers + RULE), quota, numbers,
            found_confidence + seen, found_entropy + seen, decided + slot * block, block, padded,
        )  # fmt: skip

        edit_above = tl.where(edits != 0, tl.load(numbers + EDIT_THRESHOLD), float("inf"))
        edited = there & (undecided == 0) & (place >= first) & (sure > edit_above) & (token != was)
        now = tl.where(accepted | edited, token, was)
        still_open = undecided & (accepted == 0)
        done = _finished(place, there, now, still_open, first, limit, eos_token_ids, eos_count, block)
        passes = tl.load(integers + EDITS_LEFT) - ((opened == 0) & (edits != 0)).to(tl.int64)
        over = (opened == 0) & ((tl.sum(edited.to(tl.int32), 0) == 0) | (passes <= 0))
        done = tl.where(edit_above <= 1.0, over, done)
        entropy_sum = tl.load(numbers + ENTROPY_SUM) + mean

        tl.debug_barrier()  # all that is read of the registers has been read
        tl.store(tokens + own, now, mask=there)
        tl.store(decided + own, still_open == 0, mask=there)
        if partial:
            tl.store(live + own, undecided, mask=there)
        if shown:
            tl.store(predicted + own, token, mask=undecided | edited)
            tl.store(confidence + own, sure, mask=undecided | edited)
        tl.store(integers + EDITS_LEFT, passes)
        book(integers, numbers, done, step, tl.sum(still_open.to(tl.int64), 0), opened, mean, entropy_sum)


@triton.jit
def book(integers, numbers, done, step, undecided, live, mean, entropy_sum):
    """`book_step` of one active canvas, which took `step` steps before; integers and numbers are its rows."""
    tl.store(integers + ACTIVE, 1 - done.to(tl.int64))
    tl.store(integers + STEP, step + 1)
    tl.store(integers + UNDECIDED, undecided)
    tl.store(integers + LIVE, live)
    tl.store(numbers + MEAN_ENTROPY, mean)
    tl.store(numbers + ENTROPY_SUM, entropy_sum)


@triton.jit
def _taken(
    place, undecided, sure, entropy, rule, quota, numbers, all_sure, all_entropy, all_decided,
    block: tl.constexpr, padded: tl.constexpr,
):  # fmt: skip
    """Whether a position is among as many as the rule takes, see `commit_rules`; any where it is decided."""
    rank, spent = _ranked(place, sure, entropy, rule, all_sure, all_entropy, all_decided, block, padded)
    above = undecided & (sure > tl.load(numbers + THRESHOLD))
    within = undecided & (spent < tl.load(numbers + ENTROPY_LIMIT))
    more = tl.where(rule == CONFIDENCE_THRESHOLD, tl.sum(above.to(tl.int64), 0), 0)
    more = tl.where(rule == ENTROPY_BOUND, tl.sum(within.to(tl.int64), 0), more)
    return rank < tl.maximum(quota, more)


@triton.jit
def _ranked(
    place, sure, entropy, rule, all_sure, all_entropy, all_decided, block: tl.constexpr, padded: tl.constexpr
):
    """How many undecided positions come before each, and the entropy of those with its own, [padded] each."""
    score = _score(place, sure, entropy, rule)
    rank = tl.zeros((padded,), tl.int32)
    # In float64, so that the sum is the one of any order.
    spent = tl.zeros((padded,), tl.float64)
    for start in range(0, block, COMPARED):
        other = start + tl.arange(0, COMPARED)
        undecided = tl.load(all_decided + other, mask=other < block, other=1) == 0
        its_entropy = tl.load(all_entropy + other, mask=other < block, other=0.0)
        its_sure = tl.load(all_sure + other, mask=other < block, other=0.0)
        its = _score(other, its_sure, its_entropy, rule)
        earlier = (its[None, :] == score[:, None]) & (other[None, :] < place[:, None])
        before = ((its[None, :] > score[:, None]) | earlier) & undecided[None, :]
        rank += tl.sum(before.to(tl.int32), 1)
        counted = before | (other[None, :] == place[:, None])
        spent += tl.sum(tl.where(counted, its_entropy[None, :], 0.0).to(tl.float64), 1)
    return rank, spent.to(tl.float32)


@triton.jit
def _score(place, sure, entropy, rule):
    """What a rule ranks positions by; higher is better."""
    score = tl.where(rule == ENTROPY_BOUND, -entropy, sure)
    return tl.where(rule == SEQUENTIAL, -place.to(tl.float32), score)


@triton.jit
def _finished(place, there, tokens, still_open, first, limit, eos_token_ids, eos_count, block: tl.constexpr):
    """`stop_rules.finished`: no position is open before the first end of sequence and the limit."""
    is_end = place < 0
    for index in range(eos_count):
        is_end = is_end | (tokens == tl.load(eos_token_ids + index))
    is_end = is_end & there & (still_open == 0) & (place >= first)
    end = tl.min(tl.where(is_end, place, block), 0)
    unread = still_open & (place < tl.minimum(end, limit))
    return tl.sum(unread.to(tl.int32), 0) == 0
