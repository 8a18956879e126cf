"""How many positions each denoising step decides at least, so that a block ends within its steps."""

import math
from functools import lru_cache

from easel.scheduler.request import Schedule


@lru_cache(maxsize=256)
def step_quotas(block_length: int, steps: int, schedule: Schedule) -> tuple[int, ...]:
    """The share of each of the first `block_length` steps; sums to at least `block_length`.

    Linear: block_length // steps, the remainder given to the first steps, as LLaDA
    (Nie et al., 2025) and SDAR do. Cosine: few positions first, many last, as MaskGIT
    (Chang et al., 2022). Every step decides at least one position.
    """
    if schedule is Schedule.LINEAR:
        base, extra = divmod(block_length, steps)
        shares = [base + (step < extra) for step in range(steps)]
    else:
        shares = _cosine_shares(block_length, steps)
    shares = [max(1, share) for share in shares[:block_length]]
    return (*shares, *[1] * (block_length - len(shares)))


def _cosine_shares(block_length: int, steps: int) -> list[int]:
    """Masked share after step s of S is cos(π/2 · (s + 1)/S)."""
    decided = [
        block_length - math.floor(block_length * math.cos(math.pi / 2 * (s + 1) / steps))
        for s in range(steps)
    ]
    decided[-1] = block_length
    return [now - before for now, before in zip(decided, [0, *decided], strict=False)]
