"""The head walked in tiles: statistics and draws beside a float64 softmax over all logits."""

import pytest
import torch

from easel.kernels.row_stats import reference_row_stats, row_stats
from easel.kernels.tiles import ROWS, Draw, Head
from tests.kernels.head_inputs import POISON, keys, numbers, poisoned, random_rows

SHAPES = pytest.mark.parametrize(
    ("rows", "vocabulary", "width"), [(1, 5, 3), (7, 65, 5), (3, 64, 16), (65, 501, 17), (ROWS + 1, 129, 2)]
)
MODES = pytest.mark.parametrize("gumbel", [False, True], ids=["inverse-cdf", "gumbel"])
CAPS = pytest.mark.parametrize("softcap", [0.0, 30.0], ids=["plain", "capped"])


@SHAPES
@CAPS
@MODES
def test_statistics_and_tokens_equal_the_reference(
    rows: int, vocabulary: int, width: int, softcap: float, gumbel: bool
) -> None:
    asked = random_rows(rows, vocabulary, width, softcap=softcap, gumbel=gumbel)
    found, expected = row_stats(*asked.all), reference_row_stats(*asked.all)
    assert torch.equal(found.best, expected.best)
    assert torch.equal(found.token, expected.token)
    for name in ("highest", "total", "entropy", "probability", "plain", "log_total"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5)


def test_bfloat16_weights_have_float32_statistics() -> None:
    """Each logit, of size up to 16, is rounded to 8 bits: 1/32 at worst, and 1/128 usually."""
    asked = random_rows(40, 300, 32, dtype=torch.bfloat16).greedy()
    found, expected = row_stats(*asked.all), reference_row_stats(*asked.all)
    rounded = (asked.hidden @ asked.head.weight.T).float()
    rounded[:, asked.head.forbidden] = float("-inf")
    torch.testing.assert_close(found.log_total, rounded.logsumexp(-1))
    torch.testing.assert_close(found.entropy, expected.entropy, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("vocabulary", [3000, 4097])
def test_a_draw_in_two_levels_is_the_plain_inverse_cdf_but_within_a_millionth_of_a_boundary(
    vocabulary: int,
) -> None:
    """Of 1,000 rows some numbers fall so near to where a token begins that float32 decides otherwise."""
    asked = random_rows(1000, vocabulary, 24, tile=256)
    heat = torch.linspace(0.3, 1.5, 1000)
    of = asked.hidden, asked.head, None, Draw(heat, numbers(1000))
    found, expected = row_stats(*of), reference_row_stats(*of)
    other = (found.token != expected.token).nonzero().squeeze(-1)
    assert len(other) < 10
    s = asked.hidden[other].double() @ asked.head.weight.double().T
    s[:, asked.head.forbidden] = float("-inf")
    mass = (s / heat[other, None]).softmax(-1).cumsum(-1)
    assert bool(((mass - numbers(1000)[other, None]).abs().amin(-1) < 1e-6).all())


@MODES
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_tokens_are_drawn_as_often_as_the_distribution_says(gumbel: bool, temperature: float) -> None:
    draws = 20_000
    logits = torch.tensor([1.0, 0.2, -0.5, 9.0, 0.0, 1.5, -1.0, 0.7, 0.3])
    head = Head(logits[:, None], forbidden=3, tile=4)
    draw = Draw(torch.full((draws,), temperature), numbers(draws), keys(draws) if gumbel else None)
    found = row_stats(torch.ones(draws, 1), head, None, draw)
    logits[3] = float("-inf")
    expected = (logits.double() / temperature).softmax(-1)
    counts = found.token.bincount(minlength=len(logits)).double()
    assert counts[3] == 0
    allowed = torch.arange(len(logits)) != 3
    error = counts[allowed] - draws * expected[allowed]
    assert float((error.square() / (draws * expected[allowed])).sum()) < 24.3  # 99.9 %, 7 degrees of freedom
    torch.testing.assert_close(found.probability, expected[found.token].float())


@MODES
def test_a_row_does_not_depend_on_the_rows_beside_it(gumbel: bool) -> None:
    asked = random_rows(ROWS + 30, 300, 24, gumbel=gumbel)
    whole = row_stats(*asked.all)
    for rows in (torch.tensor([17]), torch.tensor([ROWS + 3, 5]), torch.arange(ROWS + 29, -1, -3)):
        part = row_stats(*asked.of(rows).all)
        for found, expected in zip(part.columns(), whole.columns(), strict=True):
            torch.testing.assert_close(found, expected[rows], atol=1e-6, rtol=1e-6)


def test_rows_that_are_not_active_keep_what_they_had() -> None:
    asked = random_rows(23, 200, 8)
    active = torch.arange(23) % 3 != 1
    out = poisoned(23)
    found = row_stats(*asked.all, active=active, out=out)
    assert found is out
    for column, expected in zip(out.columns(), row_stats(*asked.all).columns(), strict=True):
        torch.testing.assert_close(column[active], expected[active], atol=1e-6, rtol=1e-6)
        assert column[~active].tolist() == [POISON] * int((~active).sum())


def test_among_equals_the_first_token_is_the_best_whatever_its_tile() -> None:
    weight = torch.zeros(200, 1)
    weight[[70, 150, 199]] = 2.0
    assert row_stats(torch.ones(5, 1), Head(weight, tile=64)).best.tolist() == [70] * 5


@MODES
def test_a_forbidden_token_alone_in_a_tile_leaves_everything_finite(gumbel: bool) -> None:
    asked = random_rows(9, 129, 5, forbidden=128, gumbel=gumbel)
    found, expected = row_stats(*asked.all), reference_row_stats(*asked.all)
    torch.testing.assert_close(found.entropy, expected.entropy, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.token, expected.token)


def test_very_unequal_logits_have_finite_statistics() -> None:
    weight = torch.tensor([[1e4], [-1e4], [0.0], [-3e38], [9e3]])
    found = row_stats(torch.ones(1, 1), Head(weight, tile=2), None, Draw(torch.ones(1), torch.tensor([0.5])))
    assert (found.token.item(), found.probability.item(), found.entropy.item()) == (0, 1.0, 0.0)


def test_the_lowest_and_highest_numbers_draw_tokens_that_can_be_drawn() -> None:
    weight = torch.zeros(12, 1)
    weight[[0, 1, 2, 3, 10, 11]] = -200.0  # whose weight, e^-200, is 0 in float32
    ends = torch.tensor([0.5 * 2.0**-32, 1.0 - 0.5 * 2.0**-32], dtype=torch.float64)
    found = row_stats(torch.ones(2, 1), Head(weight, tile=4), None, Draw(torch.ones(2), ends))
    assert found.token.tolist() == [4, 9]


def test_no_rows_give_empty_statistics() -> None:
    found = row_stats(torch.zeros(0, 4), Head(torch.zeros(9, 4), tile=4))
    assert [len(column) for column in found.columns()] == [0] * 7


def test_what_does_not_fit_is_refused() -> None:
    hidden, head = torch.zeros(2, 4), Head(torch.zeros(9, 4))
    with pytest.raises(ValueError, match=r"hidden \(2, 4\) torch.float32 against weight \(9, 5\)"):
        row_stats(hidden, Head(torch.zeros(9, 5)))
    with pytest.raises(ValueError, match="bfloat16"):
        row_stats(hidden, Head(torch.zeros(9, 4, dtype=torch.bfloat16)))
    with pytest.raises(ValueError, match=r"temperature \(3,\) for 2 rows"):
        row_stats(hidden, head, torch.ones(3))
    with pytest.raises(ValueError, match=r"draw.uniform \(3,\) for 2 rows"):
        row_stats(hidden, head, None, Draw(torch.ones(2), numbers(3)))
    with pytest.raises(ValueError, match="give `out`"):
        row_stats(hidden, head, active=torch.ones(2, dtype=torch.bool))
