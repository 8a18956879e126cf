"""Which undecided positions a step decides.

Every rule ranks the undecided positions of a canvas and takes the best `count`, at least the
schedule's quota, so a rule is a score and a count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easel.scheduler.request import CommitRule


@dataclass(frozen=True, slots=True)
class CanvasView:
    """What a rule may look at: c canvases after a step's head."""

    undecided: Tensor  # [c, block]  bool
    confidence: Tensor  # [c, block]  float32  of the drawn token; meaningless where decided
    entropy: Tensor  # [c, block]  float32  nats; 0 where decided
    quota: Tensor  # [c]  int64
    threshold: Tensor  # [c]  float32
    entropy_bound: Tensor  # [c]  float32  nats


def static_schedule(view: CanvasView) -> Tensor:
    """The most confident positions, as many as the schedule says (LLaDA, SDAR: low_confidence_static)."""
    return _best(view, view.confidence, view.quota)


def confidence_threshold(view: CanvasView) -> Tensor:
    """Every position above the threshold, at least the schedule's share (SDAR: low_confidence_dynamic)."""
    above = (view.undecided & (view.confidence > view.threshold[:, None])).sum(-1)
    return _best(view, view.confidence, torch.maximum(view.quota, above))


def entropy_bound(view: CanvasView) -> Tensor:
    """The least uncertain positions whose entropies add up to less than the bound (SDAR: entropy_bounded;
    Ben-Hamu et al., 2025)."""
    entropy = view.entropy.masked_fill(~view.undecided, float("inf"))
    within = (entropy.sort(dim=-1).values.cumsum(-1) < view.entropy_bound[:, None]).sum(-1)
    return _best(view, -view.entropy, torch.maximum(view.quota, within))


def sequential(view: CanvasView) -> Tensor:
    """The first undecided positions, as many as the schedule says (SDAR: sequential)."""
    place = torch.arange(view.undecided.shape[-1], device=view.undecided.device, dtype=torch.float32)
    return _best(view, -place.expand(view.undecided.shape), view.quota)


RULES: Mapping[CommitRule, Callable[[CanvasView], Tensor]] = {
    CommitRule.STATIC_SCHEDULE: static_schedule,
    CommitRule.CONFIDENCE_THRESHOLD: confidence_threshold,
    CommitRule.ENTROPY_BOUND: entropy_bound,
    CommitRule.SEQUENTIAL: sequential,
}


def accept(rules: Sequence[CommitRule], view: CanvasView) -> Tensor:
    """Positions decided in this step, [c, block] bool; canvas i follows rules[i]."""
    present = set(rules)
    if len(present) == 1:
        return RULES[present.pop()](view)
    accepted = torch.zeros_like(view.undecided)
    for rule in present:
        mine = torch.tensor([other is rule for other in rules], device=accepted.device)
        accepted |= RULES[rule](view) & mine[:, None]
    return accepted


def _best(view: CanvasView, score: Tensor, count: Tensor) -> Tensor:
    """The `count` [c] undecided positions of highest score; the earlier one first among equals."""
    order = score.masked_fill(~view.undecided, float("-inf")).argsort(dim=-1, descending=True, stable=True)
    taken = torch.arange(score.shape[-1], device=score.device) < count[:, None]
    return torch.zeros_like(view.undecided).scatter_(-1, order, taken) & view.undecided
