"""The head of self-conditioned models: tempered statistics, a drawn token and a soft embedding each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.head import CHUNK_ELEMENTS, Sampling, drawn_tokens, filtered_probabilities
from easel.kernels.row_stats import has_triton, row_stats
from easel.kernels.row_tiles import row_product
from easel.kernels.soft_embedding import (
    Candidates,
    SoftSum,
    TopK,
    embedding_root,
    soft_embed,
    soft_embed_topk,
)
from easel.kernels.tile_walk import walk
from easel.kernels.tiles import ROWS, ROWS_ON_GPU, TILE, Draw, Head, RowStats


@dataclass(frozen=True, slots=True)
class SoftDraw:
    """How each of n positions is drawn from its tempered distribution."""

    noise: Tensor  # [n]  float64  uniform in (0, 1)
    sampled: Tensor  # [n]  bool  whether a token is drawn; else it is the most probable one
    cuts: tuple[Tensor, Tensor] | None = None  # top-k [n] int64 (0: off), top-p [n] float32 (1: off)
    keys: Tensor | None = None  # [n]  int64  see gumbel.row_keys; draws by Gumbel-max instead of `noise`

    def rows(self, index: Tensor | slice) -> "SoftDraw":
        cuts = None if self.cuts is None else (self.cuts[0][index], self.cuts[1][index])
        keys = None if self.keys is None else self.keys[index]
        return SoftDraw(self.noise[index], self.sampled[index], cuts, keys)

    def cut(self) -> Tensor:
        """[n] int64: rows whose distribution is cut, which have to be seen whole."""
        if self.cuts is None:
            return torch.empty(0, dtype=torch.int64, device=self.noise.device)
        top_k, top_p = self.cuts
        return (self.sampled & ((top_k > 0) | (top_p < 1.0))).nonzero().squeeze(-1)


@dataclass(frozen=True, slots=True)
class SoftStats:
    """Of each of n positions, all under softmax(z), z being the tempered logits."""

    best: Tensor  # [n]  int64  the most probable token
    token: Tensor  # [n]  int64  the drawn one
    confidence: Tensor  # [n]  float32  probability of `best`
    entropy: Tensor  # [n]  float32  nats
    soft: Tensor  # [n, h]  dtype of the embedding; the expected embedding, times √h

    def put(self, rows: slice, part: "SoftStats") -> None:
        """Write the statistics of some rows."""
        self.best[rows] = part.best
        self.token[rows] = part.token
        self.confidence[rows] = part.confidence
        self.entropy[rows] = part.entropy
        self.soft[rows] = part.soft


def soft_head(
    hidden: Tensor,
    embedding: Tensor,
    softcap: float,
    temperature: Tensor,
    draw: SoftDraw,
    chunk_elements: int = CHUNK_ELEMENTS,
    *,
    top: TopK | None = None,
    tile: int = TILE,
) -> SoftStats:
    """Statistics of z = softcap·tanh(hidden·Eᵀ / softcap) / temperature, and softmax(z)·E·√h.

    hidden [n, h]; embedding E [vocabulary, h], of the same dtype; temperature [n] float32 above
    0. z is float32; for the soft embedding it is first rounded to the embedding's dtype, and so
    are the probabilities that come of it, as the published model has it (on a GPU the wider sums of
    Triton's products are not rounded before). Vocabularies wider than `tile` are walked in tiles;
    with `top` the soft embedding is then approximate, to its tolerance times √h. Where whole
    distributions are needed (vocabularies of one tile, and rows that top-k or top-p cuts)
    `chunk_elements` bounds the logits held at a time, but one position's are always held.
    """
    if hidden.shape[-1] != embedding.shape[-1]:
        raise ValueError(f"soft_head: hidden {tuple(hidden.shape)}, embedding {tuple(embedding.shape)}")
    head = Head(embedding, softcap, tile=tile)
    if head.tiles <= 1:
        step = max(1, chunk_elements // len(embedding))
    else:
        step = ROWS_ON_GPU if has_triton(hidden) else ROWS
    if 0 < len(hidden) <= step:
        return _of_rows(hidden, head, temperature, draw, top, chunk_elements)
    whole = _empty(len(hidden), hidden)
    for start in range(0, len(hidden), step):
        rows = slice(start, start + step)
        part = _of_rows(hidden[rows], head, temperature[rows], draw.rows(rows), top, chunk_elements)
        whole.put(rows, part)
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


def _of_rows(
    hidden: Tensor, head: Head, temperature: Tensor, draw: SoftDraw, top: TopK | None, chunk_elements: int
) -> SoftStats:
    """Of as many rows as are held at a time."""
    if head.tiles <= 1:
        return _of_logits(head.logits(hidden, temperature), head.weight, draw)
    stats, soft = _tiled(hidden, head, temperature, draw, top)
    cut, chunk = draw.cut(), max(1, chunk_elements // head.vocabulary)
    for start in range(0, len(cut), chunk):
        rows = cut[start : start + chunk]
        some = draw.rows(rows)
        probability = _cut(head.logits(hidden[rows], temperature[rows]), some)
        stats.token[rows] = drawn_tokens(probability, some.noise, some.keys)
    confidence = stats.total.reciprocal()
    return SoftStats(
        stats.best, stats.token, confidence, stats.entropy, soft.mul_(embedding_root(head.weight))
    )


def _tiled(
    hidden: Tensor, head: Head, temperature: Tensor, draw: SoftDraw, top: TopK | None
) -> tuple[RowStats, Tensor]:
    """Statistics, tokens of uncut distributions, and expected embeddings [n, h]."""
    drawn = Draw(draw.sampled.float(), draw.noise, draw.keys)
    if top is not None:
        candidates = Candidates.start(len(hidden), min(top.count, head.vocabulary), hidden.device)
        stats = walk(hidden, head, temperature, drawn, candidates)
        return stats, soft_embed_topk(hidden, head, temperature, top, stats, candidates)
    if has_triton(hidden):
        stats = row_stats(hidden, head, temperature, drawn)
        return stats, soft_embed(hidden, head, temperature, stats.highest)
    total = SoftSum.start(len(hidden), head.weight)  # one walk: the logits are computed once
    return walk(hidden, head, temperature, drawn, total), total.mean()


def _of_logits(z: Tensor, embedding: Tensor, draw: SoftDraw) -> SoftStats:
    """From whole distributions, of logits z [n, vocabulary] float32, which is overwritten."""
    narrow = z.to(embedding.dtype).softmax(-1, dtype=torch.float32).to(embedding.dtype)
    soft = row_product(narrow, embedding).mul_(embedding_root(embedding))
    highest, best = z.max(dim=-1)
    probability = _cut(z, draw)
    shifted = z.sub_(highest[:, None])
    weights = shifted.exp()
    total = weights.sum(-1)
    entropy = total.log().sub_((weights * shifted).sum(-1).div_(total))
    token = torch.where(draw.sampled, drawn_tokens(probability, draw.noise, draw.keys), best)
    return SoftStats(best, token, total.reciprocal(), entropy, soft)


def _cut(z: Tensor, draw: SoftDraw) -> Tensor:
    """The distribution tokens are drawn from, [n, vocabulary] float64."""
    if draw.cuts is None:
        return z.double().softmax(-1)
    top_k, top_p = draw.cuts
    return filtered_probabilities(z, Sampling(torch.ones_like(top_p), top_k, top_p, draw.noise))
