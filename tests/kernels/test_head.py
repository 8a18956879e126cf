"""The output head: choice, confidence and entropy of each position, greedy and drawn."""

import math
from dataclasses import replace
from random import Random

import pytest
import torch
from torch import Tensor

from easel.kernels.head import (
    Sampling,
    filtered_probabilities,
    head_stats,
    logits_stats,
    reference_head_stats,
)
from easel.kernels.noise import uniform
from easel.kernels.tiles import TILE
from tests.kernels.head_inputs import keys

FORBIDDEN = 3


@pytest.mark.parametrize(("positions", "vocabulary", "width"), [(1, 5, 3), (7, 33, 5), (64, 501, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_statistics_equal_the_reference(
    positions: int, vocabulary: int, width: int, dtype: torch.dtype
) -> None:
    hidden, weight = _inputs(positions, vocabulary, width)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    found = head_stats(hidden, weight, FORBIDDEN, None)
    expected = reference_head_stats(hidden, weight, FORBIDDEN)
    # In bfloat16 each logit, of size up to 16, is rounded to 8 bits: 1/32 at worst.
    tolerance = 1e-5 if dtype == torch.float32 else 6e-2
    torch.testing.assert_close(found.confidence, expected.confidence, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.entropy, expected.entropy, atol=tolerance, rtol=tolerance)
    if dtype == torch.float32:
        assert torch.equal(found.token, expected.token)


@pytest.mark.parametrize("chunk_elements", [1, 33, 100, 33 * 7, 33 * 23])
@pytest.mark.parametrize("drawn", [False, True], ids=["greedy", "drawn"])
def test_chunks_do_not_change_the_statistics(chunk_elements: int, drawn: bool) -> None:
    hidden, weight = _inputs(23, 33, 6)
    sampling = _sampling([0.0, 0.7, 1.3] * 7 + [1.0, 0.0], top_k=4, top_p=0.9) if drawn else None
    whole = head_stats(hidden, weight, FORBIDDEN, sampling)
    parts = head_stats(hidden, weight, FORBIDDEN, sampling, chunk_elements)
    assert torch.equal(parts.token, whole.token)
    torch.testing.assert_close(parts.confidence, whole.confidence)
    torch.testing.assert_close(parts.entropy, whole.entropy)


@pytest.mark.parametrize("kind", ["greedy", "drawn", "cut", "gumbel"])
@pytest.mark.parametrize("plain_confidence", [False, True])
def test_tiles_do_not_change_the_statistics(kind: str, plain_confidence: bool) -> None:
    """Rows with and without cuts, and greedy ones, stand side by side."""
    hidden, weight = _inputs(263, 57, 6)
    sampling = None if kind == "greedy" else _sampling([0.0, 0.7, 1.0] * 87 + [1.0, 0.3])
    if kind == "cut" and sampling is not None:
        some = torch.arange(263) % 5
        sampling = replace(sampling, top_k=some, top_p=torch.where(some == 2, 0.7, 1.0))
    if kind == "gumbel" and sampling is not None:
        sampling = replace(sampling, keys=keys(263))
    whole, parts = (
        head_stats(hidden, weight, FORBIDDEN, sampling, plain_confidence=plain_confidence, tile=tile)
        for tile in (TILE, 8)
    )
    assert torch.equal(parts.token, whole.token)
    torch.testing.assert_close(parts.confidence, whole.confidence, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(parts.entropy, whole.entropy, atol=1e-6, rtol=1e-5)


def test_no_positions_give_empty_statistics() -> None:
    found = head_stats(torch.zeros(0, 4), torch.zeros(9, 4), FORBIDDEN, None)
    assert [found.token.shape, found.confidence.shape, found.entropy.shape] == [(0,)] * 3
    assert found.token.dtype == torch.int64


@pytest.mark.parametrize("temperature", [0.0, 1.0, 10.0])
def test_the_forbidden_token_is_never_chosen_and_its_share_goes_to_the_others(temperature: float) -> None:
    logits = torch.zeros(4000, 5)
    logits[:, FORBIDDEN] = 20.0
    found = logits_stats(logits, FORBIDDEN, _sampling([temperature] * 4000))
    assert FORBIDDEN not in found.token.tolist()
    torch.testing.assert_close(found.confidence, torch.full((4000,), 0.25))
    torch.testing.assert_close(found.entropy, torch.full((4000,), 4.0).log())


def test_rows_of_temperature_zero_are_greedy_among_drawn_ones() -> None:
    hidden, weight = _inputs(40, 33, 6)
    mixed = head_stats(hidden, weight, FORBIDDEN, _sampling([0.0, 5.0] * 20))
    greedy = head_stats(hidden, weight, FORBIDDEN, None)
    assert torch.equal(mixed.token[::2], greedy.token[::2])
    assert torch.equal(mixed.confidence[::2], greedy.confidence[::2])
    assert torch.equal(mixed.entropy, greedy.entropy), "entropy is the model's own at any temperature"
    assert (mixed.token[1::2] != greedy.token[1::2]).sum() > 10


def test_top_k_of_one_is_the_greedy_choice_made_with_certainty() -> None:
    hidden, weight = _inputs(40, 33, 6)
    drawn = head_stats(hidden, weight, FORBIDDEN, _sampling([1.5] * 40, top_k=1))
    assert torch.equal(drawn.token, head_stats(hidden, weight, FORBIDDEN, None).token)
    assert drawn.confidence.tolist() == [1.0] * 40


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.6), (4, 0.8)])
def test_tokens_are_drawn_as_often_as_the_filtered_distribution_says(top_k: int, top_p: float) -> None:
    draws = 20_000
    logits = torch.tensor([1.0, 0.2, -0.5, 9.0, 0.0, 1.5, -1.0])
    sampling = _sampling([0.8] * draws, top_k=top_k, top_p=top_p)
    found = logits_stats(logits.repeat(draws, 1), FORBIDDEN, sampling)
    counts = [int(count) for count in found.token.bincount(minlength=len(logits))]
    expected = _naive_filter(logits, 0.8, top_k, top_p)
    assert [count > 0 for count in counts] == [p > 0 for p in expected]
    chi_square = sum((counts[t] - draws * p) ** 2 / (draws * p) for t, p in enumerate(expected) if p > 0)
    assert chi_square < 20.5  # the 99.9 % quantile for 5 degrees of freedom; fewer have a lower one
    torch.testing.assert_close(found.confidence, torch.tensor(expected)[found.token])


def test_filtered_probabilities_equal_a_naive_top_k_and_top_p() -> None:
    draw = Random(3)
    logits = torch.randn(200, 19, generator=torch.Generator().manual_seed(3)) * 2
    logits[:, FORBIDDEN] = float("-inf")
    settings = [
        (
            draw.choice([0.2, 1.0, 4.0]),
            draw.choice([0, 1, 2, 7, 18, 19, 50]),
            draw.choice([0.01, 0.4, 0.9, 1.0]),
        )
        for _ in range(200)
    ]
    temperature, top_k, top_p = (torch.tensor(values) for values in zip(*settings, strict=True))
    found = filtered_probabilities(logits, Sampling(temperature, top_k, top_p, noise=torch.zeros(200)))
    for row, setting in enumerate(settings):
        expected = _naive_filter(logits[row], *setting)
        assert found[row].tolist() == pytest.approx(expected, abs=1e-6), setting


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    """Four quarters, which are added without rounding; among equals the first are kept."""
    for top_p, kept in [(0.2, 1), (0.25, 1), (0.5, 2), (0.625, 3), (0.75, 3), (0.8, 4), (1.0, 4)]:
        probability = filtered_probabilities(torch.zeros(1, 4), _sampling([1.0], top_p=top_p))
        assert probability[0].tolist() == [1 / kept] * kept + [0.0] * (4 - kept), top_p


def test_the_lowest_and_highest_uniform_numbers_draw_tokens_that_can_be_drawn() -> None:
    logits = torch.zeros(2, 6)
    logits[:, [0, 5]] = float("-inf")
    ends = torch.tensor([0.5 * 2.0**-32, 1.0 - 0.5 * 2.0**-32], dtype=torch.float64)
    sampling = Sampling(torch.ones(2), torch.zeros(2, dtype=torch.int64), torch.ones(2), ends)
    assert logits_stats(logits, FORBIDDEN, sampling).token.tolist() == [1, 4]


def test_very_unequal_logits_have_finite_statistics() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0, 0.0, -3e38]])
    found = logits_stats(logits, FORBIDDEN, None)
    assert (found.token.item(), found.confidence.item(), found.entropy.item()) == (0, 1.0, 0.0)


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden \(2, 4\) against weight \(9, 5\)"):
        head_stats(torch.zeros(2, 4), torch.zeros(9, 5), FORBIDDEN, None)


def _inputs(positions: int, vocabulary: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(positions)
    return (
        torch.randn(positions, width, generator=generator),
        torch.randn(vocabulary, width, generator=generator),
    )


def _sampling(temperature: list[float], *, top_k: int = 0, top_p: float = 1.0) -> Sampling:
    n = len(temperature)
    zero = torch.tensor(0)
    return Sampling(
        temperature=torch.tensor(temperature),
        top_k=torch.full((n,), top_k),
        top_p=torch.full((n,), top_p),
        noise=uniform(torch.tensor(12), zero, zero, torch.arange(n), 0),
    )


def _naive_filter(row: Tensor, temperature: float, top_k: int, top_p: float) -> list[float]:
    """softmax(logits / temperature) without the forbidden token, then top-k, then top-p."""
    logits = [float(logit) for logit in row]
    allowed = [t for t in range(len(logits)) if t != FORBIDDEN]
    highest = max(logits[t] for t in allowed)
    weight = {t: math.exp((logits[t] - highest) / temperature) for t in allowed}
    order = sorted(allowed, key=lambda t: -weight[t])
    order = order[:top_k] if top_k else order
    total = sum(weight[t] for t in order)
    kept: list[int] = []
    while order and (not kept or sum(weight[t] for t in kept) / total < top_p):
        kept.append(order.pop(0))
    mass = sum(weight[t] for t in kept)
    return [weight[t] / mass if t in kept else 0.0 for t in range(len(logits))]
