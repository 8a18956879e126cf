"""Training samples laid out as block diffusion sees them, packed into rows of one fixed length.

A sample is a clean copy of the text, which earlier blocks are read from, followed by a noisy
copy of the blocks to be learned, at the same absolute positions (BD3-LM, arXiv:2503.09573).
A noisy block sees the clean blocks before it and itself; the clean copy is block-causal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from easel.demo.tokenizer import EOS, MASK, PAD, VOCABULARY

BLOCK_LENGTH = 32
ROW_LENGTH = 128
FILL_WEIGHT = 0.1
FULLY_MASKED = 0.25
NO_SAMPLE = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """One task's tokens in the order they take in a row; all arrays are of one length."""

    clean: np.ndarray  # tokens before any masking
    position: np.ndarray  # absolute position in the text
    noisy: np.ndarray  # bool: belongs to the noisy copy
    weight: np.ndarray  # loss weight of a noisy position if masked; 0 where it never is
    task: int

    def __len__(self) -> int:
        return len(self.clean)


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor  # [rows, row] int64, noise applied
    positions: Tensor  # [rows, row] int64
    allowed: Tensor  # [rows, row, row] bool, query by key
    targets: Tensor  # [rows, row] int64
    weights: Tensor  # [rows, row] float32, 0 where there is nothing to learn
    tasks: Tensor  # [rows, row] int64, index of the task, NO_SAMPLE where empty


def lay_out(prompt: Sequence[int], answer: Sequence[int], task: int, weight: float) -> Sample:
    """The whole answer as one sample: clean blocks but the last, then every generated block noisy."""
    first, last = len(prompt) // BLOCK_LENGTH, (len(prompt) + len(answer)) // BLOCK_LENGTH
    return _lay_out(prompt, answer, task, weight, range(first, last + 1))


def lay_out_block(
    prompt: Sequence[int], answer: Sequence[int], task: int, weight: float, pick: float
) -> Sample:
    """One generated block only, chosen by `pick` in [0, 1): for answers too long for a row."""
    first, last = len(prompt) // BLOCK_LENGTH, (len(prompt) + len(answer)) // BLOCK_LENGTH
    block = first + int(pick * (last + 1 - first))
    return _lay_out(prompt, answer, task, weight, range(block, block + 1))


def _lay_out(prompt: Sequence[int], answer: Sequence[int], task: int, weight: float, blocks: range) -> Sample:
    total = blocks.stop * BLOCK_LENGTH
    text = np.full(max(total, len(prompt) + len(answer) + 1), VOCABULARY[EOS])
    text[: len(prompt)] = prompt
    text[len(prompt) : len(prompt) + len(answer)] = answer
    weights = np.full(len(text), weight * FILL_WEIGHT, dtype=np.float32)
    weights[: len(prompt)] = 0.0
    weights[len(prompt) : len(prompt) + len(answer) + 1] = weight
    clean_length = (blocks.stop - 1) * BLOCK_LENGTH
    generated = slice(blocks.start * BLOCK_LENGTH, total)
    order = np.r_[0:clean_length, generated]
    noisy = np.arange(len(order)) >= clean_length
    return Sample(text[order], order, noisy, np.where(noisy, weights[order], 0.0), task)


def pack(samples: Iterable[Sample], rows: int, rng: np.random.Generator) -> Batch:
    """First fit, longest first; what fits nowhere is left out. Noise is drawn per noisy block."""
    shape = (rows, ROW_LENGTH)
    clean = np.full(shape, VOCABULARY[PAD])
    position, owner = np.zeros(shape, np.int64), np.full(shape, NO_SAMPLE)
    noisy, weight, task = np.zeros(shape, bool), np.zeros(shape, np.float32), np.full(shape, NO_SAMPLE)
    used = [0] * rows
    for number, sample in enumerate(sorted(samples, key=len, reverse=True)):
        row = next((r for r in range(rows) if used[r] + len(sample) <= ROW_LENGTH), None)
        if row is None:
            continue
        span = slice(used[row], used[row] + len(sample))
        clean[row, span], position[row, span], owner[row, span] = sample.clean, sample.position, number
        noisy[row, span], weight[row, span], task[row, span] = sample.noisy, sample.weight, sample.task
        used[row] += len(sample)
    masked = _draw_mask(shape, rng) & (weight > 0)
    return Batch(
        tokens=torch.from_numpy(np.where(masked, VOCABULARY[MASK], clean)),
        positions=torch.from_numpy(position),
        allowed=torch.from_numpy(allowed_attention(owner, noisy, position // BLOCK_LENGTH)),
        targets=torch.from_numpy(clean),
        weights=torch.from_numpy(np.where(masked, weight, 0.0).astype(np.float32)),
        tasks=torch.from_numpy(np.where(masked, task, NO_SAMPLE)),
    )


def _draw_mask(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Bool of `shape`: each block of a row is masked at its own rate, some of them wholly."""
    blocks = (shape[0], shape[1] // BLOCK_LENGTH)
    rate = np.where(rng.random(blocks) < FULLY_MASKED, 1.0, rng.random(blocks))
    return rng.random(shape) < np.repeat(rate, BLOCK_LENGTH, axis=1)


def allowed_attention(owner: np.ndarray, noisy: np.ndarray, block: np.ndarray) -> np.ndarray:
    """[rows, row, row] bool from three [rows, row] arrays; every position may see itself."""
    same = owner[:, :, None] == owner[:, None, :]
    query_noisy, key_noisy = noisy[:, :, None], noisy[:, None, :]
    query_block, key_block = block[:, :, None], block[:, None, :]
    from_clean = ~key_noisy & np.where(query_noisy, key_block < query_block, key_block <= query_block)
    return same & (from_clean | (query_noisy & key_noisy & (key_block == query_block)))
