"""One step of masked canvases after the head: accept, edit, commit to the registers, stop."""

from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.canvas_state import CanvasState, Real, Whole, after_step, with_mean_entropy
from easel.kernels.commit_rules import CanvasView, Rule, accept
from easel.kernels.stop_rules import edited_to_the_end, finished, mean_entropy


@dataclass(frozen=True, slots=True)
class StepTraits:
    """What the host knows of a step's canvases, so that nothing need be asked of the device."""

    rules: frozenset[Rule]
    sampled: bool = False  # a token is drawn somewhere
    cut: bool = False  # from a distribution that top-k or top-p cuts, which has to be seen whole
    edits: bool = False  # decided tokens may change somewhere
    settles: bool = False  # low entropy decides a whole canvas somewhere

    def __or__(self, other: "StepTraits") -> "StepTraits":
        return StepTraits(
            self.rules | other.rules,
            self.sampled or other.sampled,
            self.cut or other.cut,
            self.edits or other.edits,
            self.settles or other.settles,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What the head found at each position of c canvases; zeros where it was not asked."""

    token: Tensor  # [c, block]  int64
    confidence: Tensor  # [c, block]  float32
    entropy: Tensor  # [c, block]  float32  nats


def positions_asked(state: CanvasState, at: Tensor, traits: StepTraits) -> Tensor:
    """[c, block] bool: the positions of slots `at` [c] that a step's head is asked about.

    Those undecided, and where tokens are edited (LLaDA2.1) the decided output too; none of a
    canvas that is not active.
    """
    asked = ~state.decided.index_select(0, at)
    integers = state.integers.index_select(0, at)
    if traits.edits:
        output = torch.arange(state.block_length, device=at.device) >= integers[:, Whole.FIRST, None]
        edited = state.real(Real.EDIT_THRESHOLD).index_select(0, at) <= 1.0
        asked |= output & edited[:, None]
    return asked.logical_and_(integers[:, Whole.ACTIVE, None] > 0)


def commit(state: CanvasState, at: Tensor, found: Found, eos_token_ids: Tensor, traits: StepTraits) -> None:
    """Apply what the head found to the canvases of slots `at` [c] int64, all different.

    Tokens, decisions and outcomes go to the registers; a canvas that is finished is no longer
    active, and one that was not active stays as it was, bit for bit. eos_token_ids [k] int64.
    Nothing waits for the device, and what is computed depends on shapes and `traits` alone.
    """
    integers, numbers = state.integers.index_select(0, at), state.numbers.index_select(0, at)
    tokens, decided = state.tokens.index_select(0, at), state.decided.index_select(0, at)
    active = integers[:, Whole.ACTIVE] > 0
    undecided = (~decided).logical_and_(active[:, None])
    accepted, mean = _accepted(state, at, found, undecided, integers, numbers, traits)
    edited = _edited(found, tokens, decided, integers, numbers) if traits.edits else None
    changed = accepted if edited is None else accepted | edited
    shown = undecided if edited is None else undecided | edited
    tokens = torch.where(changed, found.token, tokens)
    decided |= accepted
    for register, values in ((state.predicted, found.token), (state.confidence, found.confidence)):
        register.index_copy_(0, at, torch.where(shown, values, register.index_select(0, at)))
    live = torch.where(active[:, None], undecided, state.live.index_select(0, at))
    first, limit = integers[:, Whole.FIRST], integers[:, Whole.LIMIT]
    done = finished(tokens, decided, first, limit, eos_token_ids)
    if edited is not None:
        left = integers[:, Whole.EDITS_LEFT] - (~undecided.any(-1)).to(torch.int64)
        settled = edited_to_the_end(undecided, edited, left)
        done = torch.where(numbers[:, Real.EDIT_THRESHOLD] <= 1.0, settled, done)
        integers[:, Whole.EDITS_LEFT] = torch.where(active, left, integers[:, Whole.EDITS_LEFT])
    state.tokens.index_copy_(0, at, tokens)
    state.decided.index_copy_(0, at, decided)
    state.live.index_copy_(0, at, live)
    was = active[:, None]
    after = after_step(integers, done, (~decided).sum(-1), live.sum(-1))
    state.integers.index_copy_(0, at, torch.where(was, after, integers))
    state.numbers.index_copy_(0, at, torch.where(was, with_mean_entropy(numbers, mean), numbers))


def _accepted(
    state: CanvasState,
    at: Tensor,
    found: Found,
    undecided: Tensor,
    integers: Tensor,
    numbers: Tensor,
    traits: StepTraits,
) -> tuple[Tensor, Tensor]:
    """Positions accepted [c, block], and the mean entropy [c] of those that were open."""
    # A step beyond the schedule's has the last one's quota.
    step = integers[:, Whole.STEP].clamp(max=state.block_length - 1)
    quota = state.quotas.view(-1).index_select(0, torch.add(step, at, alpha=state.block_length))
    view = CanvasView(
        undecided=undecided,
        confidence=found.confidence,
        entropy=found.entropy,
        quota=quota,
        threshold=numbers[:, Real.THRESHOLD],
        entropy_bound=numbers[:, Real.ENTROPY_BOUND],
    )
    accepted = accept(integers[:, Whole.RULE], traits.rules, view)
    mean = mean_entropy(found.entropy, undecided)
    if traits.settles:
        settled = mean < numbers[:, Real.STOP_ENTROPY]
        accepted |= undecided & settled[:, None]
    return accepted, mean


def _edited(found: Found, tokens: Tensor, decided: Tensor, integers: Tensor, numbers: Tensor) -> Tensor:
    """Decided output tokens that another one replaces, [c, block] bool.

    No confidence is above the threshold of a canvas that is not edited, or was not asked about.
    """
    output = torch.arange(tokens.shape[1], device=tokens.device) >= integers[:, Whole.FIRST, None]
    surer = found.confidence > numbers[:, Real.EDIT_THRESHOLD, None]
    editable = output & decided & (integers[:, Whole.ACTIVE, None] > 0)
    return surer.logical_and_(editable).logical_and_(found.token != tokens)
