"""A walk over the vocabulary in tiles, in plain torch.

Of each row and tile are kept the highest logit m, z = Σe^(s−m) and w = Σe^(s−m)(s−m), which merge exactly
(Milakov and Gimelshein, 2018); the entropy is ln z − w/z. A token is drawn by inverse CDF in two levels:
one uniform number and the tiles' masses pick a tile, whose logits are computed again; what is left of the
number picks the token. Tiles are of one width and are merged in one order, so a row's result does not
depend on the rows beside it.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.gumbel import token_noise
from easel.kernels.tiles import Draw, Head, RowStats, TileReader

LOWEST = torch.finfo(torch.float32).min
BELOW_ONE = 1.0 - 2.0**-53
NOISY_ROWS = 64  # rows whose noise is made at a time: Philox holds many times what it makes


def walk(
    hidden: Tensor,
    head: Head,
    temperature: Tensor | None = None,
    draw: Draw | None = None,
    reader: TileReader | None = None,
) -> RowStats:
    """Statistics of n rows of logits / temperature, and draws from them; [n, tile] is held at a time.

    hidden [n, h]; temperature [n] float32 above 0. Without a draw the tokens are the most probable.
    """
    state = _Walk.start(_Rows(hidden, head, temperature, draw))
    for tile in range(head.tiles):
        state.take(tile, reader)
    stats = state.merged()
    return stats if draw is None else state.with_draws(stats, draw)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is asked of n rows."""

    hidden: Tensor  # [n, h]
    head: Head
    temperature: Tensor | None  # [n]  float32
    draw: Draw | None

    @property
    def heat(self) -> Tensor | None:
        """The temperatures of the draw, [n] float32; None when all are 1."""
        if self.draw is None or bool(((self.draw.temperature == 1.0) | (self.draw.temperature == 0.0)).all()):
            return None
        return torch.where(self.draw.temperature > 0, self.draw.temperature, 1.0)

    def logits(self, tile: int, rows: Tensor | None = None) -> Tensor:
        """Of a tile, of all rows or of some [k], [k, tokens] float32."""
        hidden, temperature, tokens = self.hidden, self.temperature, self.head.tokens(tile)
        if rows is not None:
            hidden = hidden[rows]
            temperature = None if temperature is None else temperature[rows]
        s = self.head.logits(hidden, temperature, tokens)
        self.head.forbid(s, tokens, float("-inf"))
        return s


@dataclass(slots=True)
class _Race:
    """The token of the highest score so far, of each of n rows."""

    score: Tensor  # [n]  float32
    token: Tensor  # [n]  int64

    @classmethod
    def start(cls, like: Tensor) -> "_Race":
        score = like.new_full((len(like),), float("-inf"), dtype=torch.float32)
        return cls(score, torch.zeros_like(score, dtype=torch.int64))

    def take(self, first: int, scores: Tensor, highest: Tensor) -> Tensor:
        """Scores [n, tokens] of the tokens from `first` on. Returns which rows found a better one, [k]."""
        rows = (highest > self.score).nonzero().squeeze(-1)
        if len(rows):  # looking for the place only there spares most of it: it costs more than the maximum
            found = scores if len(rows) == len(scores) else scores[rows]
            self.token[rows] = found.argmax(-1) + first
            self.score[rows] = highest[rows]
        return rows


@dataclass(slots=True)
class _Walk:
    """What is known of n rows and the tiles so far."""

    rows: _Rows
    highest: Tensor  # [n, tiles]  float32  m
    total: Tensor  # [n, tiles]  float32  z
    weighted: Tensor  # [n, tiles]  float32  w
    mass: Tensor  # [n, tiles]  float32  Σe^((s − m) / heat); `total` itself where all temperatures are 1
    heat: Tensor | None  # [n]  float32  temperatures of the draw
    best: _Race
    drawn: _Race  # by Gumbel-max
    drawn_logit: Tensor  # [n]  float32  s of the token that leads `drawn`

    @classmethod
    def start(cls, rows: _Rows) -> "_Walk":
        hidden, heat = rows.hidden, rows.heat
        tables = hidden.new_empty(3, len(hidden), rows.head.tiles, dtype=torch.float32)
        highest, total, weighted = tables
        mass = total if heat is None else torch.empty_like(total)
        best, drawn = _Race.start(hidden), _Race.start(hidden)
        return cls(rows, highest, total, weighted, mass, heat, best, drawn, torch.zeros_like(best.score))

    def take(self, tile: int, reader: TileReader | None) -> None:
        tokens = self.rows.head.tokens(tile)
        s = self.rows.logits(tile)
        highest = s.amax(-1).clamp_(min=LOWEST)  # the forbidden token may be alone in a tile
        self.best.take(tokens.start, s, highest)
        if self.rows.draw is not None and self.rows.draw.keys is not None:
            self._race(tokens.start, s, self.rows.draw.keys)
        shifted = s.sub_(highest[:, None])
        weights = shifted.exp()
        self.highest[:, tile] = highest
        self.total[:, tile] = weights.sum(-1)
        if self.heat is not None:
            self.mass[:, tile] = shifted.div(self.heat[:, None]).exp_().sum(-1)
        if reader is not None:
            reader.take(tokens, highest, shifted, weights)
        self.rows.head.forbid(shifted, tokens, 0.0)  # 0 · −inf counts as 0
        self.weighted[:, tile] = shifted.mul_(weights).sum(-1)

    def _race(self, first: int, s: Tensor, keys: Tensor) -> None:
        blocks = [keys[start : start + NOISY_ROWS] for start in range(0, len(keys), NOISY_ROWS)]
        scores = torch.cat([token_noise(some, first, s.shape[1]) for some in blocks])
        scores.add_(s if self.heat is None else s / self.heat[:, None])
        rows = self.drawn.take(first, scores, scores.amax(-1))
        self.drawn_logit[rows] = s[rows, self.drawn.token[rows] - first]

    def merged(self) -> RowStats:
        highest = self.highest.amax(-1)
        behind = (self.highest - highest[:, None]).double()
        share = behind.exp()
        total = (share * self.total).sum(-1)
        weighted = share.mul_(behind.mul_(self.total).add_(self.weighted)).sum(-1)
        entropy, sure = (total.log() - weighted / total).float(), (1.0 / total).float()
        best = self.best.token
        return RowStats(highest, best, total.float(), entropy, token=best, probability=sure, plain=sure)

    def with_draws(self, stats: RowStats, draw: Draw) -> RowStats:
        mass = self._tempered(self.highest - stats.highest[:, None]).exp_().mul_(self.mass).cumsum(-1)
        sampled = draw.temperature > 0
        token, logit = self.drawn.token, self.drawn_logit
        if draw.keys is None:
            token, logit = self._by_inverse_cdf(mass, draw.uniform, sampled)
        ahead = logit - stats.highest
        plain = (ahead.double().exp() / stats.total).float()
        probability = (self._tempered(ahead).exp_() / mass[:, -1]).float()
        return replace(
            stats,
            token=torch.where(sampled, token, stats.best),
            probability=torch.where(sampled, probability, stats.probability),
            plain=torch.where(sampled, plain, stats.plain),
        )

    def _by_inverse_cdf(self, mass: Tensor, uniform: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [n] int64 and their logits [n] float32, of the rows that are sampled [n]."""
        tile, left = _pick(mass, uniform)
        token, logit = torch.zeros_like(self.best.token), torch.zeros_like(self.best.score)
        for index in cast(list[int], tile[sampled].unique().tolist()):
            rows = (sampled & (tile == index)).nonzero().squeeze(-1)
            s = self.rows.logits(index, rows)
            place = _place(s, None if self.heat is None else self.heat[rows], left[rows])
            token[rows] = place + self.rows.head.tokens(index).start
            logit[rows] = s.gather(-1, place[:, None]).squeeze(-1)
        return token, logit

    def _tempered(self, shifted: Tensor) -> Tensor:
        """shifted / heat in float64; shifted [n] or [n, tiles]."""
        if self.heat is None:
            return shifted.double()
        return shifted.double() / self.heat.view(-1, *[1] * (shifted.ndim - 1))


def _pick(mass: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The tile [n] int64 that each number falls into, and where in it, from 0 to below 1.

    mass [n, tiles] float64, cumulated; uniform [n] float64.
    """
    target = uniform * mass[:, -1]
    tile = torch.searchsorted(mass, target[:, None], right=True).clamp_(max=mass.shape[1] - 1)
    upper = mass.gather(-1, tile).squeeze(-1)
    lower = F.pad(mass, (1, 0)).gather(-1, tile).squeeze(-1)
    return tile.squeeze(-1), ((target - lower) / (upper - lower)).clamp_(0.0, BELOW_ONE)


def _place(s: Tensor, heat: Tensor | None, left: Tensor) -> Tensor:
    """The column [k] at which the cumulated mass exceeds a share `left` [k] of it; logits s [k, tokens]."""
    shifted = s - s.amax(-1, keepdim=True)
    if heat is not None:
        shifted.div_(heat[:, None])
    mass = shifted.exp_().cumsum(-1, dtype=torch.float64)
    place = torch.searchsorted(mass, left[:, None] * mass[:, -1:], right=True)
    return place.clamp_(max=s.shape[1] - 1).squeeze(-1)
