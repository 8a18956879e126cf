"""The load valve at a replica: canvases that open now settle sooner than their requests ask for."""

from dataclasses import replace

from easel.scheduler.messages import Tightening
from easel.scheduler.request import CommitRule, DiffusionParams


def tightened(asked: DiffusionParams, valve: Tightening) -> DiffusionParams:
    """What a canvas settles by under `valve`: never later than asked; `asked` itself if nothing changes."""
    steps, threshold, bound = asked.steps, asked.threshold, asked.entropy_bound
    if valve.most_steps is not None:
        steps = min(steps, max(1, valve.most_steps))
    if valve.threshold is not None and asked.commit_rule is CommitRule.CONFIDENCE_THRESHOLD:
        threshold = min(threshold, valve.threshold)
    if valve.entropy_bound is not None and asked.commit_rule is CommitRule.ENTROPY_BOUND:
        bound = max(bound, valve.entropy_bound)
    if (steps, threshold, bound) == (asked.steps, asked.threshold, asked.entropy_bound):
        return asked
    return replace(asked, steps=steps, threshold=threshold, entropy_bound=bound)
