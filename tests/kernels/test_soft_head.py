"""The tempered head: statistics, inverse-CDF draws and soft embeddings against their definition."""

import pytest
import torch
from torch import Tensor

from easel.kernels.head import drawn_tokens
from easel.kernels.noise import uniform
from easel.kernels.soft_embedding import TopK
from easel.kernels.soft_head import SoftDraw, reference_soft_head, soft_head
from easel.kernels.tiles import ROWS, TILE
from tests.kernels.head_inputs import keys

SOFTCAP = 30.0


@pytest.mark.parametrize(("positions", "vocabulary", "width"), [(1, 5, 3), (7, 33, 5), (64, 501, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tile", [TILE, 16], ids=["one-tile", "tiles"])
def test_statistics_equal_the_reference(
    positions: int, vocabulary: int, width: int, dtype: torch.dtype, tile: int
) -> None:
    hidden, embedding, temperature, draw = _inputs(positions, vocabulary, width)
    hidden, embedding = hidden.to(dtype), embedding.to(dtype)
    found = soft_head(hidden, embedding, SOFTCAP, temperature, draw, tile=tile)
    expected = reference_soft_head(hidden, embedding, SOFTCAP, temperature, draw)
    # In bfloat16 logits of up to 16 are rounded to 8 bits, 1/32 at worst, and then tempered.
    tolerance = 2e-5 if dtype == torch.float32 else 1e-1
    torch.testing.assert_close(found.confidence, expected.confidence, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.entropy, expected.entropy, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.soft, expected.soft, atol=3 * tolerance, rtol=tolerance)
    assert found.soft.dtype == dtype
    if dtype == torch.float32:
        assert torch.equal(found.best, expected.best)
        assert torch.equal(found.token, expected.token)


@pytest.mark.parametrize("chunk_elements", [1, 33, 100, 33 * 7, 33 * 23])
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_chunks_do_not_change_anything(chunk_elements: int, cut: bool) -> None:
    hidden, embedding, temperature, draw = _inputs(23, 33, 6)
    if cut:
        draw = SoftDraw(draw.noise, draw.sampled, (torch.arange(23), torch.linspace(0.1, 1.0, 23)))
    whole = soft_head(hidden, embedding, SOFTCAP, temperature, draw)
    parts = soft_head(hidden, embedding, SOFTCAP, temperature, draw, chunk_elements)
    for name in ("best", "token"):
        assert torch.equal(_field(parts, name), _field(whole, name))
    for name in ("confidence", "entropy", "soft"):
        torch.testing.assert_close(_field(parts, name), _field(whole, name))


@pytest.mark.parametrize("kind", ["whole", "cut", "gumbel"])
def test_tiles_do_not_change_anything(kind: str) -> None:
    hidden, embedding, temperature, draw = _inputs(ROWS + 7, 57, 6)
    if kind == "cut":
        some = torch.arange(ROWS + 7) % 5
        draw = SoftDraw(draw.noise, some != 3, (some, torch.where(some == 2, 0.7, 1.0)))
    if kind == "gumbel":
        draw = SoftDraw(draw.noise, draw.sampled, keys=keys(ROWS + 7))
    whole = soft_head(hidden, embedding, SOFTCAP, temperature, draw)
    parts = soft_head(hidden, embedding, SOFTCAP, temperature, draw, tile=8)
    for name in ("best", "token"):
        assert torch.equal(_field(parts, name), _field(whole, name))
    for name in ("confidence", "entropy", "soft"):
        torch.testing.assert_close(_field(parts, name), _field(whole, name), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 64])
def test_the_most_probable_tokens_alone_are_as_near_as_their_bound_says(count: int) -> None:
    hidden, embedding, temperature, draw = _inputs(40, 300, 8)
    longest = float(embedding.norm(dim=-1).max())
    top = TopK(count, tolerance=float("inf"), longest=longest)
    found = soft_head(hidden, embedding, SOFTCAP, temperature, draw, top=top, tile=32)
    z = SOFTCAP * (hidden.double() @ embedding.double().T / SOFTCAP).tanh() / temperature[:, None]
    p, root = z.softmax(-1), 8**0.5
    error = (found.soft / root - p @ embedding.double()).norm(dim=-1)
    bound = 2.0 * (1.0 - p.topk(count).values.sum(-1)) * longest
    assert bool((error <= bound + 1e-5).all())
    assert float(error.max()) > 1e-3, "nothing was left out"


def test_positions_whose_bound_exceeds_the_tolerance_are_computed_exactly() -> None:
    hidden, embedding, temperature, draw = _inputs(40, 300, 8)
    longest = float(embedding.norm(dim=-1).max())
    exact = soft_head(hidden, embedding, SOFTCAP, temperature, draw, tile=32)
    inexact = list[int]()
    for tolerance in (0.0, 1.0, 100.0):
        top = TopK(16, tolerance, longest)
        found = soft_head(hidden, embedding, SOFTCAP, temperature, draw, top=top, tile=32)
        error = ((found.soft - exact.soft) / 8**0.5).norm(dim=-1)
        assert float(error.max()) <= tolerance + 1e-5
        inexact.append(int((error > 1e-5).sum()))
    assert 0 == inexact[0] < inexact[1] < inexact[2]


def test_no_positions_give_empty_statistics() -> None:
    hidden, embedding, temperature, draw = _inputs(0, 9, 4)
    found = soft_head(hidden, embedding, SOFTCAP, temperature, draw)
    assert [found.best.shape, found.token.shape, found.entropy.shape] == [(0,)] * 3
    assert found.soft.shape == (0, 4)


def test_logits_of_any_size_stay_within_the_softcap() -> None:
    hidden = torch.tensor([[1e4], [-1e4]])
    embedding = torch.tensor([[1.0], [-1.0], [0.0]])
    found = soft_head(hidden, embedding, 2.0, torch.ones(2), _draw(2))
    expected = torch.tensor([2.0, -2.0, 0.0]).softmax(-1).max()
    torch.testing.assert_close(found.confidence, expected.expand(2))
    assert found.best.tolist() == [0, 1]


def test_a_position_that_is_not_sampled_gets_the_most_probable_token() -> None:
    hidden, embedding, temperature, draw = _inputs(50, 33, 6)
    sampled = torch.arange(50) % 2 == 0
    found = soft_head(hidden, embedding, SOFTCAP, temperature, SoftDraw(draw.noise, sampled))
    assert torch.equal(found.token[~sampled], found.best[~sampled])
    assert bool((found.token[sampled] != found.best[sampled]).any())


def test_draws_follow_the_tempered_distribution() -> None:
    count, temperature = 20_000, 0.5
    logits = torch.tensor([1.0, 0.0, -1.0, 0.5])
    draw = _draw(count)
    hidden = torch.ones(count, 1)
    found = soft_head(hidden, logits[:, None], SOFTCAP, torch.full((count,), temperature), draw)
    expected = (SOFTCAP * (logits / SOFTCAP).tanh() / temperature).softmax(-1)
    share = found.token.bincount(minlength=4) / count
    # Four standard deviations of a share are at most 0.015.
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0.0)


def test_top_k_and_top_p_leave_rare_tokens_undrawn_and_the_statistics_as_they_are() -> None:
    hidden, embedding, temperature, draw = _inputs(400, 33, 6)
    whole = soft_head(hidden, embedding, SOFTCAP, temperature, draw)
    one = SoftDraw(draw.noise, draw.sampled, (torch.ones(400, dtype=torch.int64), torch.ones(400)))
    nucleus = SoftDraw(
        draw.noise, draw.sampled, (torch.zeros(400, dtype=torch.int64), torch.full((400,), 1e-6))
    )
    for cut in (one, nucleus):
        found = soft_head(hidden, embedding, SOFTCAP, temperature, cut)
        assert torch.equal(found.token, whole.best)
        assert torch.equal(found.entropy, whole.entropy)
        assert torch.equal(found.soft, whole.soft)


def test_the_inverse_cdf_never_draws_what_has_no_probability() -> None:
    probability = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]], dtype=torch.float64).expand(4, -1)
    noise = torch.tensor([2.0**-33, 0.5 - 2.0**-33, 0.5, 1.0 - 2.0**-33], dtype=torch.float64)
    assert drawn_tokens(probability, noise).tolist() == [1, 1, 3, 3]


def test_the_soft_embedding_is_rounded_where_the_published_model_rounds() -> None:
    hidden, embedding, temperature, draw = _inputs(16, 33, 8)
    hidden, embedding = hidden.bfloat16(), embedding.bfloat16()
    z = SOFTCAP * ((hidden @ embedding.T).float() / SOFTCAP).tanh() / temperature[:, None]
    probability = z.bfloat16().softmax(-1, dtype=torch.float32).bfloat16()
    expected = probability @ embedding * torch.tensor(8**0.5, dtype=torch.bfloat16)
    found = soft_head(hidden, embedding, SOFTCAP, temperature, draw)
    assert torch.equal(found.soft, expected)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden \(2, 4\), embedding \(9, 5\)"):
        soft_head(torch.zeros(2, 4), torch.zeros(9, 5), SOFTCAP, torch.ones(2), _draw(2))


def _inputs(positions: int, vocabulary: int, width: int) -> tuple[Tensor, Tensor, Tensor, SoftDraw]:
    generator = torch.Generator().manual_seed(positions * vocabulary + width)
    hidden = 2.0 * torch.randn(positions, width, generator=generator)
    embedding = torch.randn(vocabulary, width, generator=generator)
    temperature = 0.4 + 0.8 * torch.rand(positions, generator=generator)
    return hidden, embedding, temperature, _draw(positions)


def _draw(positions: int) -> SoftDraw:
    place = torch.arange(positions)
    noise = uniform(torch.full_like(place, 7), place * 0, place * 0, place, 0)
    return SoftDraw(noise, torch.ones(positions, dtype=torch.bool))


def _field(of: object, name: str) -> Tensor:
    return object.__getattribute__(of, name)
