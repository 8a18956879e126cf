# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""The stages of a persistent step in Triton after the layers: from hidden states to the registers."""

from typing import NamedTuple

import triton
import triton.language as tl

from easel.kernels.canvas_state import Real, Whole
from easel.kernels.commit_rules import Rule
from easel.kernels.persistent_head_triton import choose, uniform_numbers
from easel.kernels.persistent_layers_triton import copy_rows

WHOLES, REALS = tl.constexpr(len(Whole)), tl.constexpr(len(Real))
ACTIVE, STEP, FIRST, LIMIT, BLOCK_INDEX, SEED, RULE, UNDECIDED, LIVE = (
    tl.constexpr(int(column))
    for column in (
        *(Whole.ACTIVE, Whole.STEP, Whole.FIRST, Whole.LIMIT, Whole.BLOCK_INDEX, Whole.SEED),
        *(Whole.RULE, Whole.UNDECIDED, Whole.LIVE),
    )
)
THRESHOLD, ENTROPY_LIMIT, STOP_ENTROPY, TEMPERATURE, MEAN_ENTROPY, ENTROPY_SUM = (
    tl.constexpr(int(column))
    for column in (
        *(Real.THRESHOLD, Real.ENTROPY_BOUND, Real.STOP_ENTROPY, Real.TEMPERATURE),
        *(Real.MEAN_ENTROPY, Real.ENTROPY_SUM),
    )
)
CONFIDENCE_THRESHOLD, ENTROPY_BOUND, SEQUENTIAL = (
    tl.constexpr(int(rule)) for rule in (Rule.CONFIDENCE_THRESHOLD, Rule.ENTROPY_BOUND, Rule.SEQUENTIAL)
)


class State(NamedTuple):
    """See CanvasState."""

    tokens: tl.tensor
    decided: tl.tensor
    predicted: tl.tensor
    confidence: tl.tensor
    live: tl.tensor
    quotas: tl.tensor
    integers: tl.tensor
    numbers: tl.tensor


class Trace(NamedTuple):
    """See PersistentTrace; any pointers where there is none."""

    layers: tl.tensor
    hidden: tl.tensor
    token: tl.tensor
    confidence: tl.tensor
    entropy: tl.tensor
    accepted: tl.tensor
    tokens: tl.tensor
    decided: tl.tensor
    done: tl.tensor
    mean_entropy: tl.tensor


@triton.jit
def decide(
    slot, row, there, traced, head, state, hidden, trace, eos_token_ids, eos_count, mask_token, sizes,
):  # fmt: skip
    """Stages 2 to 5. Returns whether the canvas is done."""
    integers, numbers = state.integers + slot * WHOLES, state.numbers + slot * REALS
    place, step = tl.arange(0, sizes.rows), tl.load(integers + STEP)
    undecided = there & (tl.load(state.decided + row, mask=there, other=1) == 0)
    uniform = uniform_numbers(tl.load(integers + SEED), tl.load(integers + BLOCK_INDEX), step, place)
    temperature = tl.load(numbers + TEMPERATURE)
    token, confidence, entropy = choose(
        row, there, undecided, hidden, head, mask_token, temperature, uniform, sizes
    )
    # A step beyond the schedule's has the last one's quota.
    quota = tl.load(state.quotas + slot * sizes.block + tl.minimum(step, sizes.block - 1))
    mean = tl.sum(entropy, 0) / tl.maximum(tl.sum(undecided.to(tl.int32), 0), 1)
    settled = tl.broadcast_to(mean, entropy.shape) < tl.load(numbers + STOP_ENTROPY)
    accepted = _accepted(place, undecided, confidence, entropy, quota, integers, numbers)
    accepted = accepted | (undecided & settled)
    tokens = tl.where(accepted, token, tl.load(state.tokens + row, mask=there, other=0))
    still_open = undecided & (accepted == 0)
    entropy_sum = tl.load(numbers + ENTROPY_SUM) + mean
    tl.debug_barrier()  # all that is read of the registers has been read
    _commit(row, there, state, undecided, still_open, tokens, token, confidence)
    done = _finished(place, there, tokens, still_open, integers, eos_token_ids, eos_count, sizes)
    tl.store(integers + ACTIVE, 1 - done.to(tl.int64))
    tl.store(integers + STEP, step + 1)
    tl.store(integers + UNDECIDED, tl.sum(still_open.to(tl.int64), 0))
    tl.store(integers + LIVE, tl.sum(undecided.to(tl.int64), 0))
    tl.store(numbers + MEAN_ENTROPY, mean)
    tl.store(numbers + ENTROPY_SUM, entropy_sum)
    if sizes.traced:
        at = traced.to(tl.int64) * sizes.block
        copy_rows(row, slot * sizes.block, there, hidden, trace.hidden + at * sizes.hidden, sizes)
        _record(at + place, there, trace, token, confidence, entropy, accepted, tokens, still_open)
        tl.store(trace.done + traced, done)
        tl.store(trace.mean_entropy + traced, mean)
    tl.debug_barrier()  # the next step reads the registers
    return done


@triton.jit
def _accepted(place, undecided, confidence, entropy, quota, integers, numbers):
    """Stage 3, the rules of `commit_rules`: the best positions by the rule's score, as many as it counts.

    A position's rank is the number of those before it, so nothing is sorted.
    """
    rule = tl.load(integers + RULE)
    score = tl.where(rule == ENTROPY_BOUND, -entropy, confidence)
    score = tl.where(rule == SEQUENTIAL, -place.to(tl.float32), score)
    ahead = score[None, :] > score[:, None]
    ahead = ahead | ((score[None, :] == score[:, None]) & (place[None, :] < place[:, None]))
    ahead = ahead & undecided[None, :]
    rank = tl.sum(ahead.to(tl.int32), 1)
    above = undecided & (confidence > tl.load(numbers + THRESHOLD))
    counted = ahead | (place[None, :] == place[:, None])
    # In float64, so that the sum is the one of any order.
    spent = tl.sum(tl.where(counted, entropy[None, :].to(tl.float64), 0.0), 1).to(tl.float32)
    within = undecided & (spent < tl.load(numbers + ENTROPY_LIMIT))
    more = tl.where(rule == CONFIDENCE_THRESHOLD, tl.sum(above.to(tl.int64), 0), 0)
    more = tl.where(rule == ENTROPY_BOUND, tl.sum(within.to(tl.int64), 0), more)
    return undecided & (rank < tl.maximum(quota, more))


@triton.jit
def _commit(row, there, state, undecided, still_open, tokens, token, confidence):
    """Stage 4."""
    tl.store(state.tokens + row, tokens, mask=there)
    tl.store(state.decided + row, still_open == 0, mask=there)
    tl.store(state.predicted + row, token, mask=undecided)
    tl.store(state.confidence + row, confidence, mask=undecided)


@triton.jit
def _finished(place, there, tokens, still_open, integers, eos_token_ids, eos_count, sizes):
    """Stage 5, `stop_rules.finished`: no position is open before the first end of sequence and the limit."""
    is_end = tl.zeros((sizes.rows,), tl.int1)
    for index in range(eos_count):
        is_end = is_end | (tokens == tl.load(eos_token_ids + index))
    is_end = is_end & there & (still_open == 0) & (place >= tl.load(integers + FIRST))
    end = tl.min(tl.where(is_end, place, sizes.block), 0)
    unread = still_open & (place < tl.minimum(end, tl.load(integers + LIMIT)))
    return tl.sum(unread.to(tl.int32), 0) == 0


@triton.jit
def _record(at, there, trace, token, confidence, entropy, accepted, tokens, still_open):
    tl.store(trace.token + at, token, mask=there)
    tl.store(trace.confidence + at, confidence, mask=there)
    tl.store(trace.entropy + at, entropy, mask=there)
    tl.store(trace.accepted + at, accepted, mask=there)
    tl.store(trace.tokens + at, tokens, mask=there)
    tl.store(trace.decided + at, still_open == 0, mask=there)
