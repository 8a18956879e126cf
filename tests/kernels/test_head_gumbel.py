"""Gumbel noise of every token: keyed, the same however it is cut, and distributed as it should be."""

import math

import pytest
import torch

from easel.kernels.gumbel import row_keys, token_noise
from easel.kernels.noise import reference_philox
from tests.kernels.head_inputs import keys


def test_noise_is_made_of_the_words_of_philox_in_order() -> None:
    (key,), found = keys(1).tolist(), token_noise(keys(1), 8, 6)[0]
    expected = list[float]()
    for quad in (2, 3):
        for word in reference_philox((quad, 0, 0, 0), (key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF)):
            expected.append(-math.log(-math.log1p(-(word + 0.5) * 2.0**-32)))
    torch.testing.assert_close(found, torch.tensor(expected[:6]), atol=1e-5, rtol=1e-5)


def test_noise_does_not_depend_on_how_the_vocabulary_is_cut() -> None:
    whole = token_noise(keys(3), 0, 103)
    parts = [token_noise(keys(3), first, min(20, 103 - first)) for first in range(0, 103, 20)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_noise_has_the_mean_and_the_deviation_of_a_gumbel_distribution() -> None:
    noise = token_noise(keys(50), 0, 4000).double()
    assert noise.isfinite().all()
    assert float(noise.mean()) == pytest.approx(
        0.57722, abs=0.012
    )  # four deviations of 200,000 numbers' mean
    assert float(noise.std()) == pytest.approx(math.pi / 6**0.5, rel=0.01)


def test_places_and_draws_have_keys_of_their_own() -> None:
    place = torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(3), torch.arange(3))
    seed, block, step, position = place.unbind(-1)
    both = [row_keys(seed, block, step, position, draw) for draw in (0, 1)]
    assert len(torch.cat(both).unique()) == 2 * 81
