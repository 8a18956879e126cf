"""The head of self-conditioned models: tempered statistics, a drawn token and a soft embedding each."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.head import CHUNK_ELEMENTS, Sampling, filtered_probabilities


@dataclass(frozen=True, slots=True)
class SoftDraw:
    """How each of n positions is drawn from its tempered distribution."""

    noise: Tensor  # [n]  float64  uniform in (0, 1)
    sampled: Tensor  # [n]  bool  whether a token is drawn; else it is the most probable one
    cuts: tuple[Tensor, Tensor] | None = None  # top-k [n] int64 (0: off), top-p [n] float32 (1: off)

    def rows(self, index: slice) -> "SoftDraw":
        cuts = None if self.cuts is None else (self.cuts[0][index], self.cuts[1][index])
        return SoftDraw(self.noise[index], self.sampled[index], cuts)


@dataclass(frozen=True, slots=True)
class SoftStats:
    """Of each of n positions, all under softmax(z), z being the tempered logits."""

    best: Tensor  # [n]  int64  the most probable token
    token: Tensor  # [n]  int64  the drawn one
    confidence: Tensor  # [n]  float32  probability of `best`
    entropy: Tensor  # [n]  float32  nats
    soft: Tensor  # [n, h]  dtype of the embedding; the expected embedding, times √h


def soft_head(
    hidden: Tensor,
    embedding: Tensor,
    softcap: float,
    temperature: Tensor,
    draw: SoftDraw,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> SoftStats:
    """Statistics of z = softcap·tanh(hidden·Eᵀ / softcap) / temperature, and softmax(z)·E·√h.

    hidden [n, h]; embedding E [vocabulary, h], of the same dtype; temperature [n] float32 above
    0. z is float32; for the soft embedding it is first rounded to the embedding's dtype, and so
    are the probabilities that come of it, as the published model has it. `chunk_elements` bounds
    the logits held at a time, but one position's are always held.
    """
    if hidden.shape[-1] != embedding.shape[-1]:
        raise ValueError(f"soft_head: hidden {tuple(hidden.shape)}, embedding {tuple(embedding.shape)}")
    count, chunk = len(hidden), max(1, chunk_elements // len(embedding))
    whole = _empty(count, hidden)
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
        logits = F.linear(hidden[rows], embedding).float()
        z = logits.div_(softcap).tanh_().mul_(softcap).div_(temperature[rows, None])
        whole.soft[rows] = _soft_embedding(z, embedding)
        _fill(whole, rows, z, draw.rows(rows))
    return whole


def reference_soft_head(
    hidden: Tensor, embedding: Tensor, softcap: float, temperature: Tensor, draw: SoftDraw
) -> SoftStats:
    """The definition in float64, a position at a time; nothing is rounded on the way, nothing cut."""
    whole = _empty(len(hidden), hidden)
    logits = hidden.double() @ embedding.double().T
    z = softcap * (logits / softcap).tanh() / temperature.double()[:, None]
    for row, p in enumerate(z.softmax(-1)):
        whole.best[row] = p.argmax()
        below = int((p.cumsum(0) <= draw.noise[row] * p.sum()).sum())
        whole.token[row] = below if draw.sampled[row] else whole.best[row]
        whole.confidence[row] = p.max()
        whole.entropy[row] = -torch.xlogy(p, p).sum()
        whole.soft[row] = p @ embedding.double() * embedding.shape[1] ** 0.5
    return whole


def drawn_tokens(probability: Tensor, noise: Tensor) -> Tensor:
    """Inverse CDF: the first token whose cumulated mass exceeds the uniform number.

    probability [n, vocabulary] and noise [n] in (0, 1), float64. Returns [n] int64.
    """
    mass = probability.cumsum(-1)
    token = torch.searchsorted(mass, noise[:, None] * mass[:, -1:], right=True)
    return token.clamp_(max=probability.shape[-1] - 1).squeeze(-1)


def _empty(count: int, hidden: Tensor) -> SoftStats:
    def empty(dtype: torch.dtype) -> Tensor:
        return torch.empty(count, dtype=dtype, device=hidden.device)

    return SoftStats(
        best=empty(torch.int64),
        token=empty(torch.int64),
        confidence=empty(torch.float32),
        entropy=empty(torch.float32),
        soft=torch.empty_like(hidden),
    )


def _soft_embedding(z: Tensor, embedding: Tensor) -> Tensor:
    probability = z.to(embedding.dtype).softmax(-1, dtype=torch.float32).to(embedding.dtype)
    root = torch.tensor(embedding.shape[1] ** 0.5, dtype=embedding.dtype)
    return (probability @ embedding).mul_(root)


def _fill(whole: SoftStats, rows: slice, z: Tensor, draw: SoftDraw) -> None:
    """The statistics of some rows of z [n, vocabulary], which is overwritten."""
    highest, best = z.max(dim=-1)
    probability = _cut(z, draw)
    shifted = z.sub_(highest[:, None])
    weights = shifted.exp()
    total = weights.sum(-1)
    whole.best[rows] = best
    whole.confidence[rows] = 1.0 / total
    whole.entropy[rows] = total.log() - (weights * shifted).sum(-1) / total
    whole.token[rows] = torch.where(draw.sampled, drawn_tokens(probability, draw.noise), best)


def _cut(z: Tensor, draw: SoftDraw) -> Tensor:
    """The distribution tokens are drawn from, [n, vocabulary] float64."""
    if draw.cuts is None:
        return z.double().softmax(-1)
    top_k, top_p = draw.cuts
    return filtered_probabilities(z, Sampling(torch.ones_like(top_p), top_k, top_p, draw.noise))
