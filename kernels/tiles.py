"""What a softmax over the vocabulary is taken of, how tokens are drawn from it, and what is found.

The vocabulary is cut into tiles of one width, so that logits [positions, vocabulary] are never held.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from easel.kernels.linear import linear

TILE = 1024  # tokens; a multiple of 4
ROWS = 256  # positions whose tile of logits is held at a time
ROWS_ON_GPU = 2048  # positions of one launch: what is kept of their tiles is up to 64 MiB at 262,144 tokens


@dataclass(frozen=True, slots=True)
class Head:
    """How a hidden state becomes logits s: softcap·tanh(hidden·Wᵀ / softcap), −inf at `forbidden`."""

    weight: Tensor  # [vocabulary, h]
    softcap: float = 0.0  # 0: none
    forbidden: int = -1  # a token that is never predicted; -1: none
    tile: int = TILE

    @property
    def vocabulary(self) -> int:
        return self.weight.shape[0]

    @property
    def tiles(self) -> int:
        return -(-self.vocabulary // self.tile)

    def tokens(self, tile: int) -> slice:
        return slice(tile * self.tile, min((tile + 1) * self.tile, self.vocabulary))

    def logits(self, hidden: Tensor, temperature: Tensor | None, tokens: slice | None = None) -> Tensor:
        """Of n rows and some tokens, [n, tokens] float32, divided by the rows' temperatures [n].

        The forbidden token has one as well: see `forbid`.
        """
        s = linear(hidden, self.weight if tokens is None else self.weight[tokens]).float()
        if self.softcap:
            s.div_(self.softcap).tanh_().mul_(self.softcap)
        if temperature is not None:
            s.div_(temperature[:, None])
        return s

    def forbid(self, s: Tensor, tokens: slice, value: float) -> None:
        """Put a value in the forbidden token's place, if it is among the tokens of s [n, tokens]."""
        if tokens.start <= self.forbidden < tokens.stop:
            s.select(1, self.forbidden - tokens.start).fill_(value)


@dataclass(frozen=True, slots=True)
class Draw:
    """How each of n tokens is drawn from softmax(s / temperature).

    By inverse CDF, which takes one number a row; with keys by Gumbel-max, which takes one a token.
    """

    temperature: Tensor  # [n]  float32  0: the most probable token
    uniform: Tensor  # [n]  float64  in (0, 1)
    keys: Tensor | None = None  # [n]  int64  see gumbel.row_keys; `uniform` is then not used

    def rows(self, index: Tensor | slice) -> "Draw":
        keys = None if self.keys is None else self.keys[index]
        return Draw(self.temperature[index], self.uniform[index], keys)


@dataclass(frozen=True, slots=True)
class RowStats:
    """Of each of n rows of logits s."""

    highest: Tensor  # [n]  float32  the largest logit
    best: Tensor  # [n]  int64  its token
    total: Tensor  # [n]  float32  Σe^(s − highest); 1 / total is the probability of `best`
    entropy: Tensor  # [n]  float32  nats, of softmax(s)
    token: Tensor  # [n]  int64  the drawn one
    probability: Tensor  # [n]  float32  of `token` under what it was drawn from
    plain: Tensor  # [n]  float32  of `token` under softmax(s)

    @classmethod
    def empty(cls, count: int, device: torch.device) -> "RowStats":
        def column(dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(count, dtype=dtype, device=device)

        token = torch.int64
        return cls(column(), column(token), column(), column(), column(token), column(), column())

    def rows(self, index: slice) -> "RowStats":
        """Views of some rows."""
        return RowStats(*(column[index] for column in self.columns()))

    @property
    def log_total(self) -> Tensor:
        """Log-sum-exp of the logits, [n] float32."""
        return self.highest + self.total.log()

    def columns(self) -> tuple[Tensor, ...]:
        return (
            self.highest,
            self.best,
            self.total,
            self.entropy,
            self.token,
            self.probability,
            self.plain,
        )


class TileReader(Protocol):
    """What else looks at each tile while it is there."""

    def take(self, tokens: slice, highest: Tensor, shifted: Tensor, weights: Tensor) -> None:
        """Logits s of a tile: highest [n], shifted = s − highest and weights = e^shifted, both [n, tokens].

        All float32, and not to be changed.
        """
        ...
