"""Tokens sorted by expert, on the device: every shape follows from the arguments' shapes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Routes:
    """The n·k pairs of a token and an expert, by ascending expert; those of one expert by token.

    Pair number token·k + choice is a token's choice. Some place lists them in this order. Where an
    expert's places are filled up to whole tiles there are more places than pairs, and pair 0 fills them.
    """

    pair: Tensor  # [places]  int32  the pair at each place
    place: Tensor  # [n·k]  int32  the place of each pair
    ends: Tensor  # [experts]  int32  where each expert's places end; the first's begin at 0

    @classmethod
    def empty(cls, pairs: int, experts: int, device: torch.device) -> "Routes":
        pair, place = torch.empty(2, pairs, dtype=torch.int32, device=device)
        return cls(pair, place, torch.empty(experts, dtype=torch.int32, device=device))


def route(index: Tensor, experts: int, tile: int = 1) -> Routes:
    """Sort the pairs of index [n, k] int64, whose values are below `experts`, in plain torch.

    With a `tile` each expert has a multiple of so many places, and their number depends on the values.
    """
    flat = index.flatten()
    ordered, pair = flat.sort(stable=True)
    place = torch.empty_like(pair)
    place.scatter_(0, pair, torch.arange(len(flat), device=flat.device))
    ends = torch.searchsorted(ordered, torch.arange(experts, device=flat.device), right=True, out_int32=True)
    if tile > 1:
        return _in_tiles(flat, place, ends, tile)
    return Routes(pair.int(), place.int(), ends)


def _in_tiles(expert: Tensor, place: Tensor, ends: Tensor, tile: int) -> Routes:
    """Places moved on so that each expert begins at a multiple of the tile.

    expert and place [n·k] int64, of each pair; ends [experts] int32.
    """
    count = ends.diff(prepend=ends.new_zeros(1))
    room = (count + tile - 1) // tile * tile
    wide = room.cumsum(0, dtype=torch.int32)
    place = place + ((wide - room) - (ends - count))[expert]
    pair = torch.zeros(int(room.sum()), dtype=torch.int32, device=place.device)
    pair[place] = torch.arange(len(place), dtype=torch.int32, device=place.device)
    return Routes(pair, place.int(), wide)


def weighted_sum(products: Tensor, routes: Routes, weight: Tensor) -> Tensor:
    """Each token's products, times its weights [n, k] float32, summed by ascending expert.

    products [n·k, h], by place. Returns [n, h] float32.
    """
    place, choice = routes.place.view(weight.shape).sort(dim=-1)
    share = weight.gather(1, choice)
    out = products.new_zeros(len(weight), products.shape[1], dtype=torch.float32)
    for nth in range(weight.shape[1]):
        own = products.index_select(0, place[:, nth]).float()
        out += own.mul_(share[:, nth, None])
    return out
