"""When a canvas is finished. The step cap needs no rule: the schedule's quotas end a block within it."""

import torch
from torch import Tensor


def mean_entropy(entropy: Tensor, undecided: Tensor, count: Tensor) -> Tensor:
    """[c] nats, over the `count` [c] undecided positions; 0 for a canvas that has none."""
    return torch.where(undecided, entropy, 0.0).sum(-1).div_(count.clamp(min=1))


def finished(tokens: Tensor, decided: Tensor, first: Tensor, limit: Tensor, eos_token_ids: Tensor) -> Tensor:
    """[c] bool: every position that will be read is decided.

    Read are the positions up to the first decided end-of-sequence, or to `limit`. tokens and
    decided [c, block]; first, limit [c]: the output's part of the canvas is [first, limit).
    """
    position = torch.arange(tokens.shape[-1], device=tokens.device)
    one = len(eos_token_ids) == 1
    is_end = tokens == eos_token_ids if one else torch.isin(tokens, eos_token_ids)
    is_end = is_end.logical_and_(decided).logical_and_(position >= first[:, None])
    end = torch.where(is_end, position, tokens.shape[-1]).amin(-1)
    return (position >= torch.minimum(end, limit)[:, None]).logical_or_(decided).all(-1)


def edited_to_the_end(undecided: Tensor, edited: Tensor, passes_left: Tensor) -> Tensor:
    """[c] bool: all was decided before the step, which changed nothing or was the last that may
    (LLaDA2.1). undecided, edited [c, block]; passes_left [c], this step's counted.
    """
    return ~undecided.any(-1) & (~edited.any(-1) | (passes_left <= 0))
