"""Random rows for tests of the heads."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from easel.kernels.gumbel import row_keys
from easel.kernels.noise import uniform
from easel.kernels.tiles import Draw, Head, RowStats

POISON = -77
SEED = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """What the statistics of some rows are asked with."""

    hidden: Tensor
    head: Head
    temperature: Tensor | None
    draw: Draw | None

    @property
    def all(self) -> tuple[Tensor, Head, Tensor | None, Draw | None]:
        return self.hidden, self.head, self.temperature, self.draw

    def greedy(self) -> "Asked":
        return replace(self, draw=None)

    def of(self, rows: Tensor) -> "Asked":
        """The same of some rows."""
        temperature = None if self.temperature is None else self.temperature[rows]
        return Asked(self.hidden[rows], self.head, temperature, self.draw and self.draw.rows(rows))

    def on(self, device: torch.device) -> "Asked":
        """The same on another device."""
        draw, temperature = self.draw, self.temperature
        if draw is not None:
            keyed = None if draw.keys is None else draw.keys.to(device)
            draw = Draw(draw.temperature.to(device), draw.uniform.to(device), keyed)
        head = replace(self.head, weight=self.head.weight.to(device))
        return Asked(
            self.hidden.to(device), head, None if temperature is None else temperature.to(device), draw
        )


def random_rows(
    rows: int,
    vocabulary: int,
    width: int,
    *,
    softcap: float = 0.0,
    forbidden: int = 3,
    tile: int = 64,
    gumbel: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Asked:
    """Logits with a deviation of about 3, tempered where they are capped; every fifth row is greedy."""
    generator = torch.Generator().manual_seed(rows * vocabulary + width)
    hidden = torch.randn(rows, width, generator=generator).to(dtype)
    weight = (torch.randn(vocabulary, width, generator=generator) * (3.0 / width**0.5)).to(dtype)
    temperature = 0.6 + 0.8 * torch.rand(rows, generator=generator) if softcap else None
    heat = 0.5 + torch.rand(rows, generator=generator)
    heat[::5] = 0.0
    heat[1::5] = 1.0
    draw = Draw(heat, numbers(rows), keys(rows) if gumbel else None)
    return Asked(hidden, Head(weight, softcap, forbidden, tile), temperature, draw)


def numbers(rows: int) -> Tensor:
    """A uniform number for each row."""
    zero = torch.tensor(0)
    return uniform(torch.tensor(SEED), zero, zero, torch.arange(rows), 0)


def keys(rows: int) -> Tensor:
    """A key for each row."""
    zero = torch.tensor(0)
    return row_keys(torch.tensor(SEED), zero, zero, torch.arange(rows), 5)


def poisoned(rows: int) -> RowStats:
    """Where statistics go, full of what none of them can be."""
    out = RowStats.empty(rows, torch.device("cpu"))
    for column in out.columns():
        column.fill_(POISON)
    return out
