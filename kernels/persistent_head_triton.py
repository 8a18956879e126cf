# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""The second stage of a persistent step in Triton: what the head chooses at a canvas's positions.

Logits are held a tile of the vocabulary at a time. The sums kept are those of `tile_walk`; a drawn token
takes a second walk, since a number in (0, 1) tells a token only once the whole mass is known.
"""

import triton
import triton.language as tl

from easel.kernels.logits_triton import products


@triton.jit
def choose(row, there, undecided, hidden, head, mask_token, temperature, uniform, sizes):
    """Tokens int64, confidences and entropies float32 of the open positions; zeros elsewhere. [rows] each.

    As `head_stats` has them, without cuts; `temperature` is one number, `uniform` [rows] float64.
    """
    highest = tl.full((sizes.rows,), float("-inf"), tl.float32)
    total, weighted = tl.zeros((sizes.rows,), tl.float32), tl.zeros((sizes.rows,), tl.float32)
    token = tl.zeros((sizes.rows,), tl.int32)
    mass = tl.zeros((sizes.rows,), tl.float64)
    heat = tl.where(temperature > 0.0, temperature, 1.0).to(tl.float64)
    for first in range(0, sizes.vocabulary, sizes.columns):
        s = _logits(row, there, first, hidden, head, mask_token, sizes)
        peak = tl.max(s, 1)
        token = tl.where(peak > highest, first + tl.argmax(s, 1), token)
        leading = tl.maximum(highest, peak)
        # The mask may be alone in the first tile: −∞ must not meet −∞.
        base = tl.where(leading == float("-inf"), 0.0, leading)
        behind = tl.where(highest == float("-inf"), 0.0, highest - base)
        shifted = tl.where(s == float("-inf"), 0.0, s - base[:, None])
        e = tl.where(s == float("-inf"), 0.0, tl.exp(shifted))
        weighted = tl.exp(behind) * (weighted + behind * total) + tl.sum(e * shifted, 1)
        total = tl.exp(behind) * total + tl.sum(e, 1)
        if temperature > 0.0:
            mass = tl.exp(behind.to(tl.float64) / heat) * mass + tl.sum(_heated(s, base, heat), 1)
        highest = leading
    confidence = 1.0 / total
    if temperature > 0.0:
        drawn = _drawn(row, there, hidden, head, mask_token, heat, highest, uniform * mass, sizes)
        token, confidence = drawn[0], (drawn[1] / mass).to(tl.float32)
    return (
        tl.where(undecided, token, 0).to(tl.int64),
        tl.where(undecided, confidence, 0.0),
        tl.where(undecided, tl.log(total) - weighted / total, 0.0),
    )


@triton.jit
def uniform_numbers(seed, block, step, position):
    """The numbers of `noise.uniform` with draw 0, [rows] float64."""
    zero = tl.zeros_like(position).to(tl.uint32)
    words = tl.philox(
        seed, zero + block.to(tl.uint32), zero + step.to(tl.uint32), position.to(tl.uint32), zero
    )
    return (words[0].to(tl.float64) + 0.5) * (1.0 / 4294967296.0)


@triton.jit
def _drawn(row, there, hidden, head, mask_token, heat, highest, target, sizes):
    """The first token whose cumulated mass exceeds the target, and its own mass, relative to `highest`."""
    below = tl.zeros((sizes.rows,), tl.float64)
    token = tl.zeros((sizes.rows,), tl.int32)
    own = tl.zeros((sizes.rows,), tl.float64)
    for first in range(0, sizes.vocabulary, sizes.columns):
        column = first + tl.arange(0, sizes.columns)
        s = _logits(row, there, first, hidden, head, mask_token, sizes)
        e = _heated(s, highest, heat)
        reached = below[:, None] + tl.cumsum(e, 1)
        passed = (reached <= target[:, None]) & (column < sizes.vocabulary)[None, :]
        token = tl.minimum(token + tl.sum(passed.to(tl.int32), 1), sizes.vocabulary - 1)
        # The token found lies in this tile, in none yet, or in an earlier one.
        own += tl.sum(tl.where(column[None, :] == token[:, None], e, 0.0), 1)
        below += tl.sum(e, 1)
    return token, own


@triton.jit
def _heated(s, base, heat):
    """e^((s − base) / heat) in float64."""
    shifted = tl.where(s == float("-inf"), 0.0, s - base[:, None]).to(tl.float64)
    return tl.where(s == float("-inf"), 0.0, tl.exp(shifted / heat))


@triton.jit
def _logits(row, there, first, hidden, head, mask_token, sizes):
    """[rows, columns] float32; −∞ for the mask and beyond the vocabulary."""
    token = first + tl.arange(0, sizes.columns)
    s = products(
        hidden, head, row, there, token, sizes.vocabulary, sizes.hidden,
        sizes.rows, sizes.columns, sizes.depth, sizes.widen,
    )  # fmt: skip
    return tl.where(((token < sizes.vocabulary) & (token != mask_token))[None, :], s, float("-inf"))
