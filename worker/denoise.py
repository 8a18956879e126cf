"""What happens to canvases between the head and the next step: draw, decide, stop."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.head import HeadStats, Sampling, head_stats
from easel.kernels.noise import uniform
from easel.scheduler.request import CommitRule
from easel.worker.commit_rules import CanvasView, accept
from easel.worker.registers import CanvasRegisters
from easel.worker.stop_rules import finished, mean_entropy, settled_by_entropy

TOKEN_DRAW = 0  # which of a position's random numbers picks its token


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of each of c canvases, after one step."""

    done: Tensor  # [c]  bool
    undecided: Tensor  # [c]  int64  positions still open
    mean_entropy: Tensor  # [c]  float32  nats, over the positions open before the step


def denoise(
    registers: CanvasRegisters, slots: Sequence[int], hidden: Tensor, head: Tensor, eos_token_ids: Tensor
) -> Outcome:
    """Take one denoising step of the canvases in `slots` and update their registers.

    hidden [c, block, h], in the order of `slots`; head [vocabulary, h]. Only undecided
    positions go through the head: decided ones never change.
    """
    at = torch.tensor(slots, dtype=torch.int64, device=hidden.device)
    undecided = ~registers.decided[at]
    stats = _head(registers, at, hidden, head, undecided)
    accepted = _accepted([registers.rules[slot] for slot in slots], registers, at, undecided, stats)
    _update(registers, at, undecided, accepted, stats)
    return Outcome(
        done=finished(
            registers.tokens[at],
            registers.decided[at],
            registers.first[at],
            registers.limit[at],
            eos_token_ids,
        ),
        undecided=(~registers.decided[at]).sum(-1),
        mean_entropy=mean_entropy(stats.entropy, undecided),
    )


def _head(
    registers: CanvasRegisters, at: Tensor, hidden: Tensor, head: Tensor, undecided: Tensor
) -> HeadStats:
    """Statistics [c, block] each; of decided positions: token 0, confidence 0, entropy 0."""
    row, position = undecided.nonzero(as_tuple=True)
    sampling = _sampling(registers, at, row, position)
    found = head_stats(hidden[row, position], head, registers.mask_token_id, sampling)
    token = torch.zeros_like(undecided, dtype=torch.int64)
    confidence = torch.zeros_like(undecided, dtype=torch.float32)
    entropy = torch.zeros_like(confidence)
    token[row, position] = found.token
    confidence[row, position] = found.confidence
    entropy[row, position] = found.entropy
    return HeadStats(token=token, confidence=confidence, entropy=entropy)


def _sampling(registers: CanvasRegisters, at: Tensor, row: Tensor, position: Tensor) -> Sampling | None:
    """How each open position is drawn; None when all canvases are greedy."""
    if not bool((registers.temperature[at] > 0).any()):
        return None
    slot = at[row]
    noise = uniform(
        registers.seed[slot], registers.block_index[slot], registers.step[slot], position, TOKEN_DRAW
    )
    return Sampling(
        temperature=registers.temperature[slot],
        top_k=registers.top_k[slot],
        top_p=registers.top_p[slot],
        noise=noise,
    )


def _accepted(
    rules: Sequence[CommitRule], registers: CanvasRegisters, at: Tensor, undecided: Tensor, stats: HeadStats
) -> Tensor:
    step = registers.step[at].clamp(max=registers.block_length - 1)
    view = CanvasView(
        undecided=undecided,
        confidence=stats.confidence,
        entropy=stats.entropy,
        quota=registers.quotas[at].gather(-1, step[:, None]).squeeze(-1),
        threshold=registers.threshold[at],
        entropy_bound=registers.entropy_bound[at],
    )
    settled = settled_by_entropy(stats.entropy, undecided, registers.stop_entropy[at])
    return accept(rules, view) | (undecided & settled[:, None])


def _update(
    registers: CanvasRegisters, at: Tensor, undecided: Tensor, accepted: Tensor, stats: HeadStats
) -> None:
    registers.tokens[at] = torch.where(accepted, stats.token, registers.tokens[at])
    registers.decided[at] |= accepted
    registers.predicted[at] = torch.where(undecided, stats.token, registers.predicted[at])
    registers.confidence[at] = torch.where(undecided, stats.confidence, registers.confidence[at])
    registers.step[at] += 1
