"""Noise: Philox as published, and uniform numbers that depend on their key alone."""

from random import Random

import pytest
import torch
from torch import Tensor

from easel.kernels.noise import philox, reference_philox, uniform

Counter = tuple[int, int, int, int]
Key = tuple[int, int]

# Known answers of the Random123 distribution (Salmon et al., 2011), philox4x32-10.
KNOWN_ANSWERS: list[tuple[Counter, Key, Counter]] = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: Counter, key: Key, answer: Counter) -> None:
    assert reference_philox(counter, key) == answer
    assert _philox([counter], [key]) == [answer]


def test_philox_equals_its_definition_in_python_integers() -> None:
    draw = Random(0)
    places: list[tuple[Counter, Key]] = []
    for _ in range(257):
        w = [draw.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, draw.getrandbits(32)]) for _ in range(6)]
        places.append(((w[0], w[1], w[2], w[3]), (w[4], w[5])))
    expected = [reference_philox(counter, key) for counter, key in places]
    assert _philox([counter for counter, _ in places], [key for _, key in places]) == expected


def test_a_draw_does_not_depend_on_the_batch_it_is_drawn_in() -> None:
    seeds = torch.tensor([3, 2**40 + 3, 2**63 - 1])
    together = _uniform(seeds[:, None], positions=torch.arange(7))
    for i, seed in enumerate(seeds):
        for position in range(7):
            assert _uniform(seed, positions=torch.tensor(position)) == together[i, position]


def test_seed_block_step_position_and_draw_each_change_the_number() -> None:
    zero, one = torch.tensor(0), torch.tensor(1)
    numbers = [
        uniform(zero, zero, zero, zero, 0),
        uniform(one, zero, zero, zero, 0),
        uniform(torch.tensor(2**32), zero, zero, zero, 0),
        uniform(zero, one, zero, zero, 0),
        uniform(zero, zero, one, zero, 0),
        uniform(zero, zero, zero, one, 0),
        uniform(zero, zero, zero, zero, 1),
    ]
    assert len({float(number) for number in numbers}) == len(numbers)


def test_numbers_lie_strictly_between_zero_and_one_and_fill_the_interval_evenly() -> None:
    numbers = _uniform(torch.tensor(5), positions=torch.arange(100_000))
    assert numbers.dtype == torch.float64
    assert 0.0 < float(numbers.min()) < 1e-4
    assert 1.0 - 1e-4 < float(numbers.max()) < 1.0
    cells = torch.histc(numbers, bins=100, min=0.0, max=1.0)
    chi_square = float(((cells - 1000.0).square() / 1000.0).sum())
    assert chi_square < 149.4  # the 99.9 % quantile for 99 degrees of freedom is 148.2


def test_a_word_is_mapped_to_the_middle_of_its_share_of_the_interval() -> None:
    word = reference_philox((0, 0, 7, 0), (9, 0))[0]
    assert float(_uniform(torch.tensor(9), positions=torch.tensor(7))) == (word + 0.5) / 2**32


def _uniform(seed: Tensor, positions: Tensor) -> Tensor:
    return uniform(seed, torch.tensor(0), torch.tensor(0), positions, 0)


def _philox(counters: list[Counter], keys: list[Key]) -> list[tuple[int, ...]]:
    c = torch.tensor(counters).unbind(-1)
    k = torch.tensor(keys).unbind(-1)
    words = torch.stack(philox((c[0], c[1], c[2], c[3]), (k[0], k[1])), dim=-1)
    return [tuple(int(word) for word in row) for row in words]
