"""Noise in one Triton launch, on a GPU or in Triton's interpreter: the numbers of torch, bit for bit."""

import pytest
import torch
from torch import Tensor

from easel.kernels.noise import uniform
from easel.kernels.noise_triton import fused_uniform

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in the interpreter


@pytest.mark.parametrize("draw", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 255, 700])
def test_numbers_of_places_in_a_row_are_those_of_torch(count: int, draw: int) -> None:
    places = torch.Generator().manual_seed(count)
    rows = torch.randint(0, 2**31, (count, 4), generator=places)
    rows[:, 0] = torch.randint(0, 2**62, (count,), generator=places)
    _check(*rows.unbind(1), draw=draw)  # columns: none of them is dense


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (5, 256)], ids=str)
def test_numbers_of_canvases_are_those_of_torch(shape: tuple[int, int]) -> None:
    seed, block, step = torch.tensor([[2**63 - 1, 7, 2**32, 0, 5], [0, 2**32 - 1, 3, 4, 5], [9, 0, 1, 2, 3]])
    position = torch.arange(shape[1]).expand(shape)
    _check(*(column[: shape[0], None].expand(shape) for column in (seed, block, step)), position, draw=1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3)], ids=str)
def test_other_shapes_than_the_results_and_more_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    place = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match="up to two dimensions"):
        fused_uniform(*[place] * 4, draw=0, out=torch.zeros(shape).T if len(shape) == 2 else place.double())


def _check(*places: Tensor, draw: int) -> None:
    found = torch.full(places[0].shape, float("nan"), dtype=torch.float64, device=DEVICE)
    fused_uniform(*(place.to(DEVICE) for place in places), draw=draw, out=found)
    seed, block, step, position = places
    assert torch.equal(found.cpu(), uniform(seed, block, step, position, draw))
