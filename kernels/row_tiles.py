"""Rows of a product filled up to whole tiles: what a row comes to does not depend on how many there are.

The idea of fixed tiles is that of "Defeating Nondeterminism in LLM Inference" (Thinking Machines Lab, 2025):
not chance but the size of the batch changes a row's result, since libraries choose their routines by it. On
a CPU MKL multiplies what is left of its tiles by another routine; with whole tiles a row's sums were the
same bits for every number of rows, of threads and of places that was tried.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

ROW_TILE = 4


def whole_tiles(x: Tensor) -> Tensor:
    """x [n, in] with rows of zeros added up to a multiple of ROW_TILE; x itself if there are none missing."""
    missing = -len(x) % ROW_TILE
    return F.pad(x, (0, 0, 0, missing)) if missing else x


def row_product(x: Tensor, weight: Tensor) -> Tensor:
    """x [n, in] times weight [in, out] in whole tiles of rows: [n, out]."""
    return (whole_tiles(x) @ weight)[: len(x)]


def products_agree(dtype: torch.dtype, inner: int = 192, out: int = 320) -> bool:
    """Whether on this CPU a row's product is the same bits whatever the number of rows and its place.

    Takes some milliseconds. What it finds is true of the sizes that it tries.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(out, inner, generator=generator).to(dtype)
    x = torch.randn(260, inner, generator=generator).to(dtype)
    whole = F.linear(x, weight)
    for count in (1, 2, 3, 4, 5, 8, 13, 20, 33, 64, 100, 131, 257):
        for first in (0, len(x) - count):
            rows = slice(first, first + count)
            if not torch.equal(F.linear(whole_tiles(x[rows]), weight)[:count], whole[rows]):
                return False
    return True
