"""What each replica is told: how dear a step may be, how much of it refresh, how many openings.

In the steady state a replica with S slots whose blocks take k steps finishes S/k blocks a step.
Newcomers are opened at the same rate, so that a burst of arrivals does not become a burst of
commits one block later.
"""

from math import ceil

from easel.scheduler.messages import PhasePolicy, ReplicaDigest
from easel.scheduler.placement import DEFAULT_STEPS_PER_BLOCK

NEWCOMER_SHARE = 0.5  # of a full step's cost, added for prefill where the target leaves less
MOST_REFRESH_TOKENS = 8192


def pace(digest: ReplicaDigest, *, target_seconds: float, time_to_live: float, epoch: int) -> PhasePolicy:
    """The policy for one replica; `target_seconds` is what a step should take at most.

    A replica whose canvases alone take longer than the target still gets room for newcomers:
    slots that stay empty would cost more than a longer step.
    """
    cost, block = digest.cost, digest.block_length
    steps = digest.steps_per_block or DEFAULT_STEPS_PER_BLOCK
    finishing = ceil(digest.slots / max(1.0, steps))
    canvas_seconds = block * (cost.per_token + cost.per_head_row)
    commit_seconds = block * cost.per_token
    full = cost.constant + digest.slots * canvas_seconds + finishing * commit_seconds
    target = max(target_seconds, (1.0 + NEWCOMER_SHARE) * full)
    affordable = (target - full) / cost.per_token if cost.per_token > 0.0 else MOST_REFRESH_TOKENS
    prefill = int(min(affordable, MOST_REFRESH_TOKENS))
    renewing = 2 * finishing * block  # commits and openings of canvases that go on
    return PhasePolicy(
        epoch=epoch,
        time_to_live=time_to_live,
        target_seconds=target,
        refresh_tokens=min(MOST_REFRESH_TOKENS, max(block, prefill) + renewing),
        opens_per_step=finishing,
    )
