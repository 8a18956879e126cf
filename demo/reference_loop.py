"""Block diffusion without any engine: no cache, no paging, the whole text recomputed every step.

It judges the model while it trains and is the baseline that benchmarks compare with.
The commit rule is confidence-aware parallel decoding (Fast-dLLM, arXiv:2505.22618).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class LoopSettings:
    mask_id: int
    eos_id: int
    block_length: int = 32
    threshold: float = 0.9
    max_blocks: int = 5


@dataclass(frozen=True, slots=True)
class Generation:
    """What one prompt became: its answer up to and including EOS, and the steps of every block."""

    tokens: list[int]
    steps: list[int]


def block_causal_mask(length: int, block_length: int) -> Tensor:
    """[length, length] bool: a position sees its own block whole and every earlier one."""
    block = torch.arange(length) // block_length
    return block[:, None] >= block[None, :]


@torch.no_grad()
def generate(forward: Forward, prompts: Tensor, settings: LoopSettings) -> list[Generation]:
    """Answers to prompts of one length, [rows, prompt] int64; each row goes at its own pace."""
    rows, prompt_length = prompts.shape
    first = prompt_length // settings.block_length
    tokens = torch.full((rows, (first + settings.max_blocks) * settings.block_length), settings.mask_id)
    tokens[:, :prompt_length] = prompts
    steps = torch.zeros(rows, settings.max_blocks, dtype=torch.int64)
    for block in range(settings.max_blocks):
        end = (first + block + 1) * settings.block_length
        live = ~_finished(tokens[:, prompt_length : end - settings.block_length], settings)
        live &= (tokens[:, prompt_length:end] == settings.mask_id).any(1)
        while live.any():
            logits = forward(tokens[live, :end], *_geometry(int(live.sum()), end, settings))
            tokens[live, end - settings.block_length : end] = decide(
                tokens[live, end - settings.block_length : end],
                logits[:, end - settings.block_length :],
                settings,
            )
            steps[live, block] += 1
            answer = tokens[:, prompt_length:end]
            live &= (answer == settings.mask_id).any(1) & ~_finished(answer, settings)
    return [_collect(tokens[row, prompt_length:], steps[row], settings) for row in range(rows)]


def decide(canvas: Tensor, logits: Tensor, settings: LoopSettings) -> Tensor:
    """The canvas [rows, block] after one step: every masked position above the threshold, at least one."""
    logits = logits.clone()
    logits[..., settings.mask_id] = float("-inf")
    confidence, choice = logits.softmax(-1).max(-1)
    masked = canvas == settings.mask_id
    confidence = confidence.masked_fill(~masked, -1.0)
    best = torch.nn.functional.one_hot(confidence.argmax(-1), canvas.shape[-1]).bool()
    return torch.where(masked & ((confidence > settings.threshold) | best), choice, canvas)


def _geometry(rows: int, length: int, settings: LoopSettings) -> tuple[Tensor, Tensor]:
    positions = torch.arange(length).expand(rows, length)
    return positions, block_causal_mask(length, settings.block_length).expand(rows, length, length)


def _finished(answer: Tensor, settings: LoopSettings) -> Tensor:
    """[rows] bool: an EOS is decided and no position before the first one is still masked."""
    ended = (answer == settings.eos_id).cumsum(1) > 0
    return ended.any(1) & ~((answer == settings.mask_id) & ~ended).any(1)


def _collect(answer: Tensor, steps: Tensor, settings: LoopSettings) -> Generation:
    tokens = answer.tolist()
    if settings.eos_id in tokens:
        tokens = tokens[: tokens.index(settings.eos_id) + 1]
    return Generation(
        [token for token in tokens if token != settings.mask_id], [s for s in steps.tolist() if s]
    )
