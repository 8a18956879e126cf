"""The output head: from hidden states to one chosen token and its statistics per position."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_ELEMENTS = 1 << 24  # logits held at a time: 64 MiB in float32


@dataclass(frozen=True, slots=True)
class HeadStats:
    """What a commit rule may ask about each position."""

    token: Tensor  # [n]  int64    drawn at the row's temperature, or the most probable one
    confidence: Tensor  # [n]  float32  probability of `token` under the distribution it was drawn from
    entropy: Tensor  # [n]  float32  nats, of the model's own distribution


@dataclass(frozen=True, slots=True)
class Sampling:
    """How each of n positions is drawn. Rows of temperature 0 ignore the rest."""

    temperature: Tensor  # [n]  float32
    top_k: Tensor  # [n]  int64    0: off
    top_p: Tensor  # [n]  float32  1: off
    noise: Tensor  # [n]  float64  uniform in (0, 1)

    def rows(self, index: Tensor | slice) -> "Sampling":
        return Sampling(self.temperature[index], self.top_k[index], self.top_p[index], self.noise[index])


def head_stats(
    hidden: Tensor,
    weight: Tensor,
    forbidden: int,
    sampling: Sampling | None,
    chunk_elements: int = CHUNK_ELEMENTS,
    *,
    plain_confidence: bool = False,
) -> HeadStats:
    """Choose a token at each position, never holding all positions' logits at once.

    hidden [n, d]; weight [vocabulary, d]; `forbidden` is the mask token, which is never
    predicted. `sampling` None means greedy everywhere. `chunk_elements` bounds the logits held
    at a time, but one position's are always held. With `plain_confidence` a drawn token's
    confidence is its probability under the model's own distribution, neither tempered nor cut.
    """
    if hidden.shape[-1] != weight.shape[-1]:
        raise ValueError(f"head_stats: hidden {tuple(hidden.shape)} against weight {tuple(weight.shape)}")
    chunk = max(1, chunk_elements // weight.shape[0])
    parts: list[HeadStats] = []
    for start in range(0, hidden.shape[0], chunk):
        rows = slice(start, start + chunk)
        logits = F.linear(hidden[rows], weight).float()
        drawn = None if sampling is None else sampling.rows(rows)
        parts.append(logits_stats(logits, forbidden, drawn, plain_confidence=plain_confidence))
    if len(parts) == 1:
        return parts[0]
    return _concatenate(parts, hidden.device)


def logits_stats(
    logits: Tensor, forbidden: int, sampling: Sampling | None, *, plain_confidence: bool = False
) -> HeadStats:
    """Statistics of logits [n, vocabulary] float32, which is overwritten."""
    logits[:, forbidden] = float("-inf")
    highest, token = logits.max(dim=-1)
    shifted = logits.sub_(highest[:, None])
    weights = shifted.exp()
    total = weights.sum(-1)
    # Σ p·ln p = Σ p·shifted − ln total; the forbidden token's 0 · −inf counts as 0.
    expected = (weights * shifted.nan_to_num(neginf=0.0)).sum(-1) / total
    stats = HeadStats(token=token, confidence=1.0 / total, entropy=total.log() - expected)
    if sampling is None:
        return stats
    drawn = _with_samples(stats, shifted, sampling)
    if not plain_confidence:
        return drawn
    plain = weights.gather(-1, drawn.token[:, None]).squeeze(-1) / total
    return HeadStats(token=drawn.token, confidence=plain, entropy=drawn.entropy)


def reference_head_stats(hidden: Tensor, weight: Tensor, forbidden: int) -> HeadStats:
    """Greedy choice from a float64 softmax over all logits."""
    logits = hidden.double() @ weight.double().T
    logits[:, forbidden] = float("-inf")
    probability = logits.softmax(-1)
    confidence, token = probability.max(-1)
    entropy = -torch.xlogy(probability, probability).sum(-1)
    return HeadStats(token, confidence.float(), entropy.float())


def filtered_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """softmax(logits / temperature), then top-k, then top-p (Holtzman et al., 2020), renormalised.

    logits [n, vocabulary]; returns float64. Top-p keeps the fewest most probable tokens whose
    mass reaches p; at least one token is always kept.
    """
    probability = (logits.double() / sampling.temperature.double()[:, None]).softmax(-1)
    if bool((sampling.top_k == 0).all()) and bool((sampling.top_p >= 1.0).all()):
        return probability
    ordered, order = probability.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ordered.shape[-1], device=ordered.device)
    top_k = torch.where(sampling.top_k == 0, ordered.shape[-1], sampling.top_k)
    ordered = ordered * (rank < top_k[:, None])
    ordered = ordered / ordered.sum(-1, keepdim=True)
    before = ordered.cumsum(-1) - ordered
    keep = (before < sampling.top_p.double()[:, None]) | (rank == 0) | (sampling.top_p >= 1.0)[:, None]
    ordered = ordered * keep
    kept = torch.zeros_like(probability).scatter_(-1, order, ordered)
    return kept / kept.sum(-1, keepdim=True)


def _with_samples(greedy: HeadStats, logits: Tensor, sampling: Sampling) -> HeadStats:
    """Replace the choice of the rows whose temperature is above zero."""
    drawn = sampling.temperature > 0
    if not bool(drawn.any()):
        return greedy
    rows = drawn.nonzero().squeeze(-1)
    chosen = sampling.rows(rows)
    probability = filtered_probabilities(logits[rows], chosen)
    # Inverse CDF: the first token whose cumulated mass exceeds the uniform number.
    mass = probability.cumsum(-1)
    token = torch.searchsorted(mass, chosen.noise[:, None] * mass[:, -1:], right=True)
    token = token.clamp_(max=probability.shape[-1] - 1)
    confidence = probability.gather(-1, token).squeeze(-1).float()
    return HeadStats(
        token=greedy.token.index_copy(0, rows, token.squeeze(-1)),
        confidence=greedy.confidence.index_copy(0, rows, confidence),
        entropy=greedy.entropy,
    )


def _concatenate(parts: list[HeadStats], device: torch.device) -> HeadStats:
    if not parts:
        empty = torch.empty(0, device=device)
        return HeadStats(empty.long(), empty, empty)
    return HeadStats(
        token=torch.cat([part.token for part in parts]),
        confidence=torch.cat([part.confidence for part in parts]),
        entropy=torch.cat([part.entropy for part in parts]),
    )
