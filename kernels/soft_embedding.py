"""The expected embedding softmax(s)·E of each row, from hidden states, without probabilities in memory."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.row_stats import has_triton
from easel.kernels.row_tiles import row_product
from easel.kernels.tile_walk import walk
from easel.kernels.tiles import ROWS, Head, RowStats


def embedding_root(embedding: Tensor) -> float:
    """√h of an embedding [vocabulary, h], rounded to its dtype, as the published DiffusionGemma scales it."""
    fraction, exponent = math.frexp(embedding.shape[1] ** 0.5)
    steps = 2.0 / torch.finfo(embedding.dtype).eps  # that the dtype divides the numbers below 1 into
    return math.ldexp(round(fraction * steps) / steps, exponent)


@dataclass(frozen=True, slots=True)
class TopK:
    """Leave out all but the most probable tokens where the error is bounded.

    With the kept tokens' probabilities renormalised, the soft embedding is off by at most
    2·(1 − their mass)·longest. Rows in which that exceeds the tolerance are computed exactly.
    """

    count: int  # tokens kept of each row
    tolerance: float  # largest error allowed, as a length, of softmax(s)·E
    longest: float  # length of the longest embedding


def soft_embed(
    hidden: Tensor,
    head: Head,
    temperature: Tensor,
    highest: Tensor,
    *,
    active: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Σ softmax(s)·E of s = logits / temperature, E the head's weight; a second pass after row_stats.

    | argument    | shape  | dtype                                                       |
    |-------------|--------|-------------------------------------------------------------|
    | hidden      | [n, h] | that of the weight, float32 or bfloat16                     |
    | temperature | [n]    | float32 above 0                                             |
    | highest     | [n]    | float32, of each row of s; only keeps the weights in range  |
    | active      | [n]    | bool; rows of `out` that are not active stay as they are    |
    | out         | [n, h] | that of the weight; None: a new tensor                      |

    Rounds as SoftSum does. Raises ValueError for shapes that do not fit.
    """
    if hidden.shape[1] != head.weight.shape[1] or not len(hidden) == len(temperature) == len(highest):
        raise ValueError(
            f"soft_embed: hidden {tuple(hidden.shape)}, weight {tuple(head.weight.shape)}, "
            f"temperature {tuple(temperature.shape)}, highest {tuple(highest.shape)}"
        )
    found = torch.empty_like(hidden) if out is None else out
    if has_triton(hidden):
        from easel.kernels.soft_triton import tiled_soft_embed  # noqa: PLC0415  only where there is Triton

        tiled_soft_embed(hidden, head, temperature, highest, active, found)
        return found
    rows = torch.arange(len(hidden), device=hidden.device) if active is None else active.nonzero().squeeze(-1)
    for start in range(0, len(rows), ROWS):
        block = rows[start : start + ROWS]
        total = SoftSum.start(len(block), head.weight)
        walk(hidden[block], head, temperature[block], reader=total)
        found[block] = total.mean()
    return found


def reference_soft_embed(hidden: Tensor, head: Head, temperature: Tensor) -> Tensor:
    """The definition in float64; nothing is rounded on the way. [n, h] float64."""
    s = hidden.double() @ head.weight.double().T
    if head.softcap:
        s = head.softcap * (s / head.softcap).tanh()
    return (s / temperature.double()[:, None]).softmax(-1) @ head.weight.double()


@dataclass(slots=True)
class SoftSum:
    """Sums weights·E tile by tile, of n rows, relative to the highest logit so far.

    In a narrower dtype than float32 the logits are rounded to it first, and the weights after that, as
    the published DiffusionGemma does with logits and probabilities; sums are float32.
    """

    embedding: Tensor  # [vocabulary, h]
    highest: Tensor  # [n]  float32
    total: Tensor  # [n]  float32  Σe^(s − highest)
    sums: Tensor  # [n, h]  float32  Σe^(s − highest)·E

    @classmethod
    def start(cls, count: int, embedding: Tensor) -> "SoftSum":
        zero = embedding.new_zeros(count, dtype=torch.float32)
        sums = embedding.new_zeros(count, embedding.shape[1], dtype=torch.float32)
        return cls(embedding, torch.full_like(zero, torch.finfo(torch.float32).min), zero, sums)

    def take(self, tokens: slice, highest: Tensor, shifted: Tensor, weights: Tensor) -> None:
        dtype = self.embedding.dtype
        if dtype != torch.float32:
            rounded = (shifted + highest[:, None]).to(dtype).float()
            weights = rounded.sub_(highest[:, None]).exp_()
        leader = torch.maximum(self.highest, highest)
        before, now = (self.highest - leader).exp_(), (highest - leader).exp_()
        self.highest = leader
        self.total.mul_(before).addcmul_(now, weights.sum(-1))
        part = row_product(weights.to(dtype), self.embedding[tokens]).float()
        self.sums.mul_(before[:, None]).add_(part.mul_(now[:, None]))

    def mean(self) -> Tensor:
        """[n, h], dtype of the embedding."""
        return self.sums.div_(self.total[:, None]).to(self.embedding.dtype)


@dataclass(slots=True)
class Candidates:
    """The most probable tokens so far, of each of n rows, in descending order."""

    logits: Tensor  # [n, k]  float32
    tokens: Tensor  # [n, k]  int64

    @classmethod
    def start(cls, count: int, kept: int, device: torch.device) -> "Candidates":
        logits = torch.full((count, kept), float("-inf"), dtype=torch.float32, device=device)
        return cls(logits, torch.zeros_like(logits, dtype=torch.int64))

    def take(self, tokens: slice, highest: Tensor, shifted: Tensor, weights: Tensor) -> None:
        rows = (highest > self.logits[:, -1]).nonzero().squeeze(-1)
        if len(rows) == 0:
            return
        s = shifted[rows] + highest[rows, None]
        found = s.topk(min(s.shape[1], self.logits.shape[1]), dim=-1)
        logits = torch.cat((self.logits[rows], found.values), dim=-1)
        both = torch.cat((self.tokens[rows], found.indices + tokens.start), dim=-1)
        best = logits.topk(self.logits.shape[1], dim=-1)
        self.logits[rows] = best.values
        self.tokens[rows] = both.gather(-1, best.indices)


def soft_embed_topk(
    hidden: Tensor, head: Head, temperature: Tensor, top: TopK, stats: RowStats, candidates: Candidates
) -> Tensor:
    """Σ p·E over the candidates, p renormalised; exact in the rows whose bound exceeds the tolerance.

    hidden [n, h]; temperature [n]; stats and candidates of the same rows and temperatures. Returns [n, h].
    """
    p = (candidates.logits - stats.highest[:, None]).exp_().div_(stats.total[:, None])
    mass = p.sum(-1)
    p = p.div_(mass[:, None]).to(head.weight.dtype)
    soft = F.embedding_bag(candidates.tokens, head.weight, per_sample_weights=p, mode="sum")
    far = (2.0 * (1.0 - mass) * top.longest > top.tolerance).nonzero().squeeze(-1)
    if len(far):
        soft[far] = soft_embed(hidden[far], head, temperature[far], stats.highest[far])
    return soft
