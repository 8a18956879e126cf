"""Which undecided positions a step decides.

Every rule ranks the undecided positions of a canvas and takes the best `count`, at least the
schedule's quota, so a rule is a score and a count.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Rule(IntEnum):
    """How the device tells the rules apart."""

    STATIC_SCHEDULE = 0
    CONFIDENCE_THRESHOLD = 1
    ENTROPY_BOUND = 2
    SEQUENTIAL = 3


@dataclass(frozen=True, slots=True)
class CanvasView:
    """What a rule may look at: c canvases after a step's head."""

    undecided: Tensor  # [c, block]  bool
    confidence: Tensor  # [c, block]  float32  of the drawn token; meaningless where decided
    entropy: Tensor  # [c, block]  float32  nats; meaningless where decided
    quota: Tensor  # [c]  int64
    threshold: Tensor  # [c]  float32
    entropy_bound: Tensor  # [c]  float32  nats


Ranked = tuple[Tensor, Tensor]  # score [c, block] float32, higher is better; count [c] int64


def static_schedule(view: CanvasView) -> Ranked:
    """The most confident positions, as many as the schedule says (LLaDA, SDAR: low_confidence_static)."""
    return view.confidence, view.quota


def confidence_threshold(view: CanvasView) -> Ranked:
    """Every position above the threshold, at least the schedule's share (SDAR: low_confidence_dynamic)."""
    above = (view.confidence > view.threshold[:, None]).logical_and_(view.undecided).sum(-1)
    return view.confidence, torch.maximum(view.quota, above)


def entropy_bound(view: CanvasView) -> Ranked:
    """The least uncertain positions whose entropies add up to less than the bound (SDAR: entropy_bounded;
    Ben-Hamu et al., 2025)."""
    entropy = view.entropy.masked_fill(~view.undecided, float("inf"))
    within = (entropy.sort(dim=-1).values.cumsum(-1) < view.entropy_bound[:, None]).sum(-1)
    return -view.entropy, torch.maximum(view.quota, within)


def sequential(view: CanvasView) -> Ranked:
    """The first undecided positions, as many as the schedule says (SDAR: sequential)."""
    place = torch.arange(view.undecided.shape[-1], device=view.undecided.device, dtype=torch.float32)
    return (-place).expand(view.undecided.shape), view.quota


RULES: Mapping[Rule, Callable[[CanvasView], Ranked]] = {
    Rule.STATIC_SCHEDULE: static_schedule,
    Rule.CONFIDENCE_THRESHOLD: confidence_threshold,
    Rule.ENTROPY_BOUND: entropy_bound,
    Rule.SEQUENTIAL: sequential,
}


def accept(rule: Tensor, present: frozenset[Rule], view: CanvasView) -> Tensor:
    """Positions decided in this step, [c, block] bool; canvas i follows `rule` [c] int64.

    `present` names every rule among them: what the host knows need not be asked of the device.
    """
    first, *others = sorted(present)
    score, count = RULES[first](view)
    for other in others:
        mine = rule == other
        its_score, its_count = RULES[other](view)
        score = torch.where(mine[:, None], its_score, score)
        count = torch.where(mine, its_count, count)
    return _best(view.undecided, score, count)


def _best(undecided: Tensor, score: Tensor, count: Tensor) -> Tensor:
    """The `count` [c] undecided positions of highest score; the earlier one first among equals."""
    order = torch.where(undecided, score, float("-inf")).argsort(dim=-1, descending=True, stable=True)
    taken = torch.arange(score.shape[-1], device=score.device) < count[:, None]
    return torch.zeros_like(undecided).scatter_(-1, order, taken).logical_and_(undecided)
