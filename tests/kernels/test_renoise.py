"""Which positions of a renoised canvas are accepted, and what fills the others."""

import pytest
import torch

from easel.kernels.canvas_state import Whole
from easel.kernels.noise import uniform
from easel.kernels.renoise import CANVAS_DRAW, RENOISE_DRAW, noise_tokens, within_bound


@pytest.mark.parametrize(
    ("entropy", "bound", "accepted"),
    [
        ([0.75, 0.25, 0.5], 0.0, [0, 1, 0]),  # the surest one is always accepted
        ([0.75, 0.25, 0.5], 0.25, [0, 1, 1]),  # the last one accepted does not count
        ([0.75, 0.25, 0.5], 0.7, [0, 1, 1]),
        ([0.75, 0.25, 0.5], 0.75, [1, 1, 1]),
        ([0.0, 2.0, 0.0], 0.0, [1, 1, 1]),
        ([5.0, 5.0, 5.0], 1.0, [1, 0, 0]),  # the first among equals
    ],
)
def test_the_surest_positions_are_accepted_up_to_the_bound(
    entropy: list[float], bound: float, accepted: list[int]
) -> None:
    found = within_bound(torch.tensor([entropy]), torch.tensor([bound]))
    assert [int(value) for value in found[0]] == accepted


def test_noise_depends_on_the_canvas_the_step_and_the_place_and_on_what_it_is_for() -> None:
    integers = torch.zeros(3, len(Whole), dtype=torch.int64)
    integers[:, Whole.SEED] = torch.tensor([5, 2**62, 5])
    integers[:, Whole.STEP] = torch.tensor([1, 1, 2])
    integers[:, Whole.BLOCK_INDEX] = 7
    found = noise_tokens(integers, 9, RENOISE_DRAW, 1000)
    for row in range(3):
        for place in range(9):
            seed, step = integers[row, Whole.SEED], integers[row, Whole.STEP]
            number = uniform(seed, torch.tensor(7), step, torch.tensor(place), RENOISE_DRAW)
            assert int(found[row, place]) == int(number * 1000)
    assert (
        len({tuple(row) for row in (*found.tolist(), *noise_tokens(integers, 9, CANVAS_DRAW, 1000).tolist())})
        == 6
    )
