"""One step of masked canvases after the head: accept, edit, commit to the registers, stop."""

from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.canvas_state import CanvasState, Real, Whole, book_step
from easel.kernels.commit_rules import CanvasView, Rule, accept
from easel.kernels.row_stats import has_triton
from easel.kernels.stop_rules import edited_to_the_end, finished, mean_entropy


@dataclass(frozen=True, slots=True)
class StepTraits:
    """What the host knows of a step's canvases, so that nothing need be asked of the device."""

    rules: frozenset[Rule]
    sampled: bool = False  # a token is drawn somewhere
    cut: bool = False  # from a distribution that top-k or top-p cuts, which has to be seen whole
    edits: bool = False  # decided tokens may change somewhere
    settles: bool = False  # low entropy decides a whole canvas somewhere
    partial: bool = False  # some steps compute live positions only
    shown: bool = False  # the host looks at predictions and their confidence

    def __or__(self, other: "StepTraits") -> "StepTraits":
        return StepTraits(
            self.rules | other.rules,
            self.sampled or other.sampled,
            self.cut or other.cut,
            self.edits or other.edits,
            self.settles or other.settles,
            self.partial or other.partial,
            self.shown or other.shown,
        )


@dataclass(frozen=True, slots=True)
class Gathered:
    """The registers of c canvases as a step finds them; copies."""

    at: Tensor  # [c]  int64  their slots
    tokens: Tensor  # [c, block]  int64
    decided: Tensor  # [c, block]  bool
    undecided: Tensor  # [c, block]  bool  nowhere in a canvas that is not active
    integers: Tensor  # [c, len(Whole)]  int64
    numbers: Tensor  # [c, len(Real)]  float32

    @classmethod
    def of(cls, state: CanvasState, at: Tensor) -> "Gathered":
        """The canvases of slots `at`, all different."""
        integers, decided = state.integers.index_select(0, at), state.decided.index_select(0, at)
        return cls(
            at=at,
            tokens=state.tokens.index_select(0, at),
            decided=decided,
            undecided=integers[:, Whole.ACTIVE, None] > decided,
            integers=integers,
            numbers=state.numbers.index_select(0, at),
        )

    def asked(self, traits: StepTraits) -> Tensor:
        """[c, block] bool: the positions that a step's head is asked about.

        Those undecided, and where tokens are edited (LLaDA2.1) the decided output too.
        """
        if not traits.edits:
            return self.undecided
        edited = self.numbers[:, Real.EDIT_THRESHOLD] <= 1.0
        edited = edited.logical_and_(self.integers[:, Whole.ACTIVE] > 0)
        return (self.output() & edited[:, None]).logical_or_(self.undecided)

    def output(self) -> Tensor:
        """[c, block] bool: the positions that are not the prompt's."""
        place = torch.arange(self.tokens.shape[1], device=self.at.device)
        return place >= self.integers[:, Whole.FIRST, None]


@dataclass(frozen=True, slots=True)
class Found:
    """What the head found at each position of c canvases; zeros where it was not asked."""

    token: Tensor  # [c, block]  int64
    confidence: Tensor  # [c, block]  float32
    entropy: Tensor  # [c, block]  float32  nats


def commit(
    state: CanvasState, canvases: Gathered, found: Found, eos_token_ids: Tensor, traits: StepTraits
) -> None:
    """Apply what the head found to canvases that have just been gathered.

    Tokens, decisions and outcomes go to the registers; a canvas that is finished is no longer
    active, and one that was not active stays as it was, bit for bit. eos_token_ids [k] int64.
    Nothing waits for the device, and what is computed depends on shapes and `traits` alone. On a GPU it
    is one launch, which reads the registers themselves; there slots that are not active may recur.
    """
    if has_triton(found.entropy):
        from easel.kernels.commit_triton import fused_commit  # noqa: PLC0415  only where there is Triton

        fused_commit(state, canvases.at, found, eos_token_ids, traits)
        return
    at, integers, undecided = canvases.at, canvases.integers, canvases.undecided
    open_before = undecided.sum(-1)
    mean = mean_entropy(found.entropy, undecided, open_before)
    accepted = _accepted(state, canvases, found, mean, traits)
    edited = _edited(canvases, found) if traits.edits else None
    changed = accepted if edited is None else accepted | edited
    tokens, decided = torch.where(changed, found.token, canvases.tokens), canvases.decided | accepted
    done = finished(tokens, decided, integers[:, Whole.FIRST], integers[:, Whole.LIMIT], eos_token_ids)
    if edited is not None:
        done = _edited_to_the_end(canvases, edited, done)
    if traits.shown:
        _show(state, at, undecided if edited is None else undecided | edited, found)
    if traits.partial:
        active = integers[:, Whole.ACTIVE, None] > 0
        state.live.index_copy_(0, at, torch.where(active, undecided, state.live.index_select(0, at)))
    state.tokens.index_copy_(0, at, tokens)
    state.decided.index_copy_(0, at, decided)
    book_step(
        *(state, at, integers, canvases.numbers),
        done=done,
        undecided=open_before - accepted.sum(-1),
        live=open_before,
        mean=mean,
    )


def _accepted(
    state: CanvasState, canvases: Gathered, found: Found, mean: Tensor, traits: StepTraits
) -> Tensor:
    """Positions accepted, [c, block] bool; `mean` [c] is the entropy of those that are open."""
    integers, numbers = canvases.integers, canvases.numbers
    # A step beyond the schedule's has the last one's quota.
    step = integers[:, Whole.STEP].clamp(max=state.block_length - 1)
    quota = state.quotas.view(-1).index_select(0, torch.add(step, canvases.at, alpha=state.block_length))
    view = CanvasView(
        undecided=canvases.undecided,
        confidence=found.confidence,
        entropy=found.entropy,
        quota=quota,
        threshold=numbers[:, Real.THRESHOLD],
        entropy_bound=numbers[:, Real.ENTROPY_BOUND],
    )
    accepted = accept(integers[:, Whole.RULE], traits.rules, view)
    if traits.settles:
        settled = mean < numbers[:, Real.STOP_ENTROPY]
        accepted |= canvases.undecided & settled[:, None]
    return accepted


def _edited(canvases: Gathered, found: Found) -> Tensor:
    """Decided output tokens that another one replaces, [c, block] bool.

    No confidence is above the threshold of a canvas that is not edited, or was not asked about.
    """
    surer = found.confidence > canvases.numbers[:, Real.EDIT_THRESHOLD, None]
    editable = canvases.output().logical_and_(canvases.integers[:, Whole.ACTIVE, None] > canvases.undecided)
    return surer.logical_and_(editable).logical_and_(found.token != canvases.tokens)


def _edited_to_the_end(canvases: Gathered, edited: Tensor, done: Tensor) -> Tensor:
    """[c] bool: whether canvases are finished, given that for those that are not edited.

    The passes that are left are counted down in the gathered integers.
    """
    integers, closed = canvases.integers, canvases.undecided.any(-1).logical_not()
    active = integers[:, Whole.ACTIVE] > 0
    integers[:, Whole.EDITS_LEFT] -= (closed & active).to(torch.int64)
    settled = edited_to_the_end(canvases.undecided, edited, integers[:, Whole.EDITS_LEFT])
    return torch.where(canvases.numbers[:, Real.EDIT_THRESHOLD] <= 1.0, settled, done)


def _show(state: CanvasState, at: Tensor, shown: Tensor, found: Found) -> None:
    """Keep what was found at the positions `shown` [c, block]."""
    for register, values in ((state.predicted, found.token), (state.confidence, found.confidence)):
        register.index_copy_(0, at, torch.where(shown, values, register.index_select(0, at)))
