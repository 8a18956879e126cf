"""The output head: from hidden states to one chosen token and its statistics per position."""

from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.gumbel import token_noise
from easel.kernels.row_stats import row_stats
from easel.kernels.tiles import TILE, Draw, Head

CHUNK_ELEMENTS = 1 << 18  # logits held at a time where whole distributions are needed: 1 MiB in float32


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
    keys: Tensor | None = None  # [n]  int64  see gumbel.row_keys; draws by Gumbel-max instead of `noise`

    def rows(self, index: Tensor | slice) -> "Sampling":
        keys = None if self.keys is None else self.keys[index]
        cuts = self.top_k[index], self.top_p[index]
        return Sampling(self.temperature[index], *cuts, self.noise[index], keys)

    def cut(self) -> Tensor:
        """[n] bool: rows whose distribution is cut, which have to be seen whole."""
        return (self.temperature > 0) & ((self.top_k > 0) | (self.top_p < 1.0))


def head_stats(
    hidden: Tensor,
    weight: Tensor,
    forbidden: int,
    sampling: Sampling | None,
    chunk_elements: int = CHUNK_ELEMENTS,
    *,
    plain_confidence: bool = False,
    tile: int = TILE,
) -> HeadStats:
    """Choose a token at each position, never holding all positions' logits at once.

    hidden [n, d]; weight [vocabulary, d]; `forbidden` is the mask token, which is never
    predicted. `sampling` None means greedy everywhere. Vocabularies wider than `tile` are walked
    in tiles. Where whole distributions are needed (vocabularies of one tile, and rows that top-k
    or top-p cuts) `chunk_elements` bounds the logits held at a time, but one position's are
    always held. With `plain_confidence` a drawn token's confidence is its probability under the
    model's own distribution, neither tempered nor cut.
    """
    if hidden.shape[-1] != weight.shape[-1]:
        raise ValueError(f"head_stats: hidden {tuple(hidden.shape)} against weight {tuple(weight.shape)}")
    head = Head(weight, forbidden=forbidden, tile=tile)
    if head.tiles <= 1:
        return _in_chunks(hidden, head, sampling, chunk_elements, plain_confidence=plain_confidence)
    draw, cut = None, None
    if sampling is not None:
        cut = sampling.cut()
        draw = Draw(sampling.temperature.masked_fill(cut, 0.0), sampling.noise, sampling.keys)
    found = row_stats(hidden, head, None, draw)
    stats = HeadStats(found.token, found.plain if plain_confidence else found.probability, found.entropy)
    if sampling is None or cut is None or not bool(cut.any()):
        return stats
    rows = cut.nonzero().squeeze(-1)
    part = _in_chunks(
        hidden[rows], head, sampling.rows(rows), chunk_elements, plain_confidence=plain_confidence
    )
    stats.token[rows] = part.token
    stats.confidence[rows] = part.confidence
    return stats


def logits_stats(
    logits: Tensor, forbidden: int, sampling: Sampling | None, *, plain_confidence: bool = False
) -> HeadStats:
    """Statistics of logits [n, vocabulary] float32, which is overwritten."""
    logits.select(1, forbidden).fill_(float("-inf"))
    highest, token = logits.max(dim=-1)
    shifted = logits.sub_(highest[:, None])
    weights = shifted.exp()
    total = weights.sum(-1)
    # Σ p·ln p = Σ p·shifted − ln total; the forbidden token's 0 · −inf counts as 0.
    expected = (weights * shifted).nansum(-1).div_(total)
    stats = HeadStats(token=token, confidence=total.reciprocal(), entropy=total.log().sub_(expected))
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
    mass reaches p; at least one token is always kept. A row that neither cuts is left as it is,
    whatever the others ask for.
    """
    probability = (logits.double() / sampling.temperature.double()[:, None]).softmax(-1)
    rows = ((sampling.top_k > 0) | (sampling.top_p < 1.0)).nonzero().squeeze(-1)
    if len(rows) == len(probability):
        return _cut(probability, sampling)
    if len(rows):
        probability[rows] = _cut(probability[rows], sampling.rows(rows))
    return probability


def _cut(probability: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [n, vocabulary] after top-k and top-p; overwrites them."""
    ordered, order = probability.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ordered.shape[-1], device=ordered.device)
    top_k = torch.where(sampling.top_k == 0, ordered.shape[-1], sampling.top_k)
    ordered *= rank < top_k[:, None]
    ordered /= ordered.sum(-1, keepdim=True)
    before = ordered.cumsum(-1).sub_(ordered)
    keep = (before < sampling.top_p.double()[:, None]).logical_or_((sampling.top_p >= 1.0)[:, None])
    keep[:, 0] = True
    ordered *= keep
    kept = probability.zero_().scatter_(-1, order, ordered)
    return kept.div_(kept.sum(-1, keepdim=True))


def drawn_tokens(probability: Tensor, noise: Tensor, keys: Tensor | None = None) -> Tensor:
    """Inverse CDF: the first token whose cumulated mass exceeds the uniform number.

    probability [n, vocabulary] and noise [n] in (0, 1), float64. With keys [n] int64 Gumbel-max
    instead: the token of the largest ln p + noise. Returns [n] int64.
    """
    if keys is not None:
        return token_noise(keys, 0, probability.shape[-1]).double().add_(probability.log()).argmax(-1)
    mass = probability.cumsum(-1)
    token = torch.searchsorted(mass, noise[:, None] * mass[:, -1:], right=True)
    return token.clamp_(max=probability.shape[-1] - 1).squeeze(-1)


def _with_samples(greedy: HeadStats, logits: Tensor, sampling: Sampling) -> HeadStats:
    """Replace the choice of the rows whose temperature is above zero."""
    rows = (sampling.temperature > 0).nonzero().squeeze(-1)
    if len(rows) == 0:
        return greedy
    if len(rows) == len(logits):
        return HeadStats(*_drawn(logits, sampling), entropy=greedy.entropy)
    token, confidence = _drawn(logits[rows], sampling.rows(rows))
    return HeadStats(
        token=greedy.token.index_copy(0, rows, token),
        confidence=greedy.confidence.index_copy(0, rows, confidence),
        entropy=greedy.entropy,
    )


def _drawn(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """A token [n] int64 of each row of logits [n, vocabulary], and its probability [n] float32."""
    probability = filtered_probabilities(logits, sampling)
    token = drawn_tokens(probability, sampling.noise, sampling.keys)
    return token, probability.gather(-1, token[:, None]).squeeze(-1).float()


def _in_chunks(
    hidden: Tensor, head: Head, sampling: Sampling | None, chunk_elements: int, *, plain_confidence: bool
) -> HeadStats:
    """Whole distributions of as many rows at a time as the chunk holds."""
    chunk, count = max(1, chunk_elements // head.vocabulary), len(hidden)
    if 0 < count <= chunk:
        logits = head.logits(hidden, None)
        return logits_stats(logits, head.forbidden, sampling, plain_confidence=plain_confidence)
    parts: list[HeadStats] = []
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
        drawn = None if sampling is None else sampling.rows(rows)
        part = _in_chunks(hidden[rows], head, drawn, chunk_elements, plain_confidence=plain_confidence)
        parts.append(part)
    return _concatenate(parts, hidden.device)


def _concatenate(parts: list[HeadStats], device: torch.device) -> HeadStats:
    if not parts:
        empty = torch.empty(0, device=device)
        return HeadStats(empty.long(), empty, empty)
    return HeadStats(
        token=torch.cat([part.token for part in parts]),
        confidence=torch.cat([part.confidence for part in parts]),
        entropy=torch.cat([part.entropy for part in parts]),
    )
