"""Gumbel noise of every token of a vocabulary, keyed by row: argmax(s + noise) is a draw from softmax(s).

A number for each (row, token) instead of one for each row (Gumbel, 1954; Maddison et al., 2014). It needs
neither the sum of the weights nor a second look at a tile, but a quarter of a Philox block a token.
"""

import torch
from torch import Tensor

from easel.kernels.noise import philox

_WORD = 0xFFFFFFFF
SERIES_BELOW = 2.0**-8  # of u: −ln(1 − u) = u + u²/2 + u³/3 there, to float32's last bit


def row_keys(seed: Tensor, block: Tensor, step: Tensor, position: Tensor, draw: int) -> Tensor:
    """A 64-bit key per element, [n] int64; arguments as in `noise.uniform`.

    Its lower half is the word that `uniform` makes its number of: use a `draw` that nothing else uses.
    """
    counter = (block, step, position, torch.full_like(seed, draw))
    words = philox(counter, (seed & _WORD, (seed >> 32) & _WORD))
    return words[0] | (words[1] << 32)


def token_noise(keys: Tensor, first: int, count: int) -> Tensor:
    """Standard Gumbel noise of tokens [first, first + count) in each of n rows, [n, count] float32.

    keys [n] int64; `first` a multiple of 4: token t takes word t mod 4 of counter (t // 4, 0, 0, 0).
    """
    quads = -(-count // 4)
    counter = torch.arange(first // 4, first // 4 + quads, device=keys.device).expand(len(keys), -1)
    zero, key = torch.zeros_like(counter), keys[:, None]
    words = philox((counter, zero, zero, zero), (key & _WORD, (key >> 32) & _WORD))
    return _gumbel(torch.stack(words, dim=-1).flatten(1)[:, :count])


def _gumbel(words: Tensor) -> Tensor:
    """−ln(−ln(1 − u)), u = (word + ½)·2⁻³². The large values, which win, come of small u, which are fine."""
    u = (words.float() + 0.5) * 2.0**-32
    series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0)))
    return torch.where(u < SERIES_BELOW, series, -(1.0 - u).log()).log_().neg_()
