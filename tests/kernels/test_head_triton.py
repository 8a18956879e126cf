"""The heads' Triton kernels beside the torch path and a float64 softmax, on the same rows."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from easel.kernels.head import HeadStats, Sampling, head_stats
from easel.kernels.row_stats import reference_row_stats, row_stats
from easel.kernels.soft_embedding import reference_soft_embed, soft_embed
from easel.kernels.soft_head import SoftDraw, SoftStats, soft_head
from easel.kernels.tiles import RowStats
from tests.kernels.head_inputs import POISON, Asked, numbers, poisoned, random_rows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
SHAPES = pytest.mark.parametrize(("rows", "vocabulary", "width"), [(1, 5, 3), (17, 65, 70), (5, 200, 17)])
MODES = pytest.mark.parametrize("mode", ["greedy", "inverse-cdf", "gumbel"])


@TRITON
@SHAPES
@MODES
@pytest.mark.parametrize("softcap", [0.0, 30.0], ids=["plain", "capped"])
def test_statistics_and_tokens_equal_the_reference(
    rows: int, vocabulary: int, width: int, mode: str, softcap: float
) -> None:
    asked = random_rows(rows, vocabulary, width, softcap=softcap, gumbel=mode == "gumbel")
    asked = asked.greedy() if mode == "greedy" else asked
    found = _run(asked, poisoned(rows))
    for expected in (reference_row_stats(*asked.all), row_stats(*asked.all)):
        assert torch.equal(found.best, expected.best)
        assert torch.equal(found.token, expected.token)
        for name in ("highest", "total", "entropy", "probability", "plain"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-5, rtol=2e-5)


@TRITON
def test_thousands_of_tokens_in_many_tiles_have_the_references_statistics() -> None:
    asked = random_rows(3, 4000, 20)
    found, expected = _run(asked, poisoned(3), tile=128), reference_row_stats(*asked.all)
    assert torch.equal(found.best, expected.best)
    torch.testing.assert_close(found.entropy, expected.entropy, atol=1e-4, rtol=0.0)
    assert torch.equal(found.token, expected.token)


@TRITON
def test_products_of_bfloat16_numbers_are_not_rounded() -> None:
    asked = random_rows(5, 200, 40, dtype=torch.bfloat16)
    found, expected = _run(asked, poisoned(5)), reference_row_stats(*asked.all)
    torch.testing.assert_close(found.entropy, expected.entropy, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.token, expected.token)


@TRITON
@MODES
def test_rows_that_are_not_active_keep_what_they_had(mode: str) -> None:
    """All of the first block of rows, and some of the second."""
    asked = random_rows(37, 70, 8, gumbel=mode == "gumbel")
    asked = asked.greedy() if mode == "greedy" else asked
    active = (torch.arange(37) > 20) & (torch.arange(37) % 3 > 0)
    out = _run(asked, poisoned(37), active)
    for column, expected in zip(out.columns(), row_stats(*asked.all).columns(), strict=True):
        torch.testing.assert_close(column[active], expected[active], atol=2e-5, rtol=2e-5)
        assert column[~active].tolist() == [POISON] * int((~active).sum())


@TRITON
@MODES
def test_a_forbidden_token_alone_in_a_tile_leaves_everything_finite(mode: str) -> None:
    asked = random_rows(4, 129, 5, forbidden=128, gumbel=mode == "gumbel")
    asked = asked.greedy() if mode == "greedy" else asked
    found, expected = _run(asked, poisoned(4)), reference_row_stats(*asked.all)
    torch.testing.assert_close(found.entropy, expected.entropy, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.token, expected.token)


@TRITON
@SHAPES
@pytest.mark.parametrize("span", [64, None], ids="span={}".format)
def test_soft_embeddings_equal_the_reference(
    rows: int, vocabulary: int, width: int, span: int | None
) -> None:
    asked = random_rows(rows, vocabulary, width, softcap=30.0, forbidden=-1)
    found = _soft(asked, torch.full_like(asked.hidden, POISON), span=span)
    expected = reference_soft_embed(asked.hidden, asked.head, _heat(asked))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, _soft_by_torch(asked), atol=1e-5, rtol=1e-5)


@TRITON
def test_soft_embeddings_in_bfloat16_are_rounded_as_the_torch_path_rounds() -> None:
    """That path also rounds the products, by 1/32 where they are largest."""
    asked = random_rows(9, 150, 24, softcap=30.0, forbidden=-1, dtype=torch.bfloat16)
    found = _soft(asked, torch.full_like(asked.hidden, POISON))
    torch.testing.assert_close(found.float(), _soft_by_torch(asked).float(), atol=0.1, rtol=0.1)


@TRITON
def test_soft_embeddings_of_rows_that_are_not_active_stay() -> None:
    asked = random_rows(21, 130, 12, softcap=30.0, forbidden=-1)
    active = torch.arange(21) % 3 == 0
    found = _soft(asked, torch.full_like(asked.hidden, POISON), active)
    torch.testing.assert_close(found[active], _soft_by_torch(asked)[active], atol=1e-5, rtol=1e-5)
    assert bool((found[~active] == POISON).all())


@TRITON
def test_both_heads_go_through_triton_where_it_is_to_be_had_a_launch_for_some_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = random_rows(5, 1100, 8, softcap=30.0).on(DEVICE)
    noise = numbers(5).to(DEVICE)
    cut = torch.tensor([0, 0, 0, 0, 2], device=DEVICE), torch.ones(5, device=DEVICE)
    sampling, draw = Sampling(_heat(asked), *cut, noise), SoftDraw(noise, noise > 0.3)

    def both() -> tuple[HeadStats, SoftStats]:
        soft = soft_head(asked.hidden, asked.head.weight, 30.0, _heat(asked), draw)
        return head_stats(asked.hidden, asked.head.weight, 3, sampling), soft

    for module in ("row_stats", "soft_head"):
        monkeypatch.setattr(f"easel.kernels.{module}.ROWS_ON_GPU", 3)
    _choose(monkeypatch, triton=False)
    by_torch = both()
    _choose(monkeypatch, triton=True)
    for found, expected in zip(both(), by_torch, strict=True):
        for name in type(found).__slots__:
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-5, rtol=2e-5)


@TRITON
def test_tensors_that_are_not_dense_are_refused() -> None:
    asked = random_rows(4, 100, 6)
    strided = replace(asked, hidden=asked.hidden.repeat(1, 2)[:, ::2])
    with pytest.raises(ValueError, match=r"shape \(4, 6\) has strides \(12, 2\)"):
        _run(strided, poisoned(4))


def test_the_heads_work_where_triton_is_not_installed() -> None:
    program = """
import sys
sys.modules["triton"] = None
import torch
from easel.kernels.head import head_stats
from easel.kernels.soft_head import soft_head
assert head_stats(torch.ones(2, 3), torch.ones(2000, 3), 1, None).token.tolist() == [0, 0]
"""
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", program], check=True, timeout=60)


def _run(asked: Asked, out: RowStats, active: Tensor | None = None, tile: int = 64) -> RowStats:
    """Into `out`, on the GPU where there is one, and back."""
    from easel.kernels.head_triton import TILE, tiled_row_stats  # noqa: PLC0415  only where there is Triton

    there = RowStats(*(column.to(DEVICE) for column in out.columns()))
    active = None if active is None else active.to(DEVICE)
    tiled_row_stats(*asked.on(DEVICE).all, active, there, tile if DEVICE.type == "cpu" else TILE)
    return RowStats(*(column.cpu() for column in there.columns()))


def _soft(asked: Asked, out: Tensor, active: Tensor | None = None, span: int | None = None) -> Tensor:
    from easel.kernels.soft_triton import tiled_soft_embed  # noqa: PLC0415  only where there is Triton

    highest, there, asked = row_stats(*asked.all).highest.to(DEVICE), out.to(DEVICE), asked.on(DEVICE)
    active = None if active is None else active.to(DEVICE)
    tiled_soft_embed(asked.hidden, asked.head, _heat(asked), highest, active, there, span)
    return there.cpu()


def _soft_by_torch(asked: Asked) -> Tensor:
    return soft_embed(asked.hidden, asked.head, _heat(asked), row_stats(*asked.all).highest)


def _choose(monkeypatch: pytest.MonkeyPatch, *, triton: bool) -> None:
    def chosen(_: Tensor) -> bool:
        return triton

    for module in ("row_stats", "soft_embedding", "soft_head"):
        monkeypatch.setattr(f"easel.kernels.{module}.has_triton", chosen)


def _heat(asked: Asked) -> Tensor:
    """The temperatures of the rows."""
    assert asked.temperature is not None
    return asked.temperature
