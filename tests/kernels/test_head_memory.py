"""The head holds [positions, vocabulary] at no time: counted are all tensors that operations return."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from easel.kernels.head import Sampling, head_stats
from easel.kernels.soft_embedding import TopK
from easel.kernels.soft_head import SoftDraw, soft_head
from tests.kernels.head_inputs import keys, numbers
from tests.worker.storage_meter import StorageMeter

POSITIONS, VOCABULARY, WIDTH = 256, 262_144, 8
BUDGET = 16e6  # bytes; one table of logits in float32 would be 268 MB


@pytest.fixture(scope="module")
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(POSITIONS, WIDTH, generator=generator),
        torch.randn(VOCABULARY, WIDTH, generator=generator),
    )


@pytest.mark.parametrize("temperature", [None, 1.0, 0.7], ids="temperature={}".format)
def test_a_canvas_of_the_largest_vocabulary_takes_16_megabytes(
    rows: tuple[Tensor, Tensor], temperature: float | None
) -> None:
    sampling = None if temperature is None else _sampling(POSITIONS, temperature)
    assert _peak(lambda: head_stats(*rows, 3, sampling), rows[1]) < BUDGET


def test_noise_for_every_token_does_not_take_more(rows: tuple[Tensor, Tensor]) -> None:
    hidden, weight = rows
    sampling = _sampling(POSITIONS, 0.7, gumbel=True)
    assert _peak(lambda: head_stats(hidden, weight[:5000], 3, sampling), weight) < BUDGET


def test_positions_whose_distribution_is_cut_are_seen_whole_one_at_a_time(
    rows: tuple[Tensor, Tensor],
) -> None:
    hidden, weight = rows
    sampling = _sampling(3, 0.7, top_p=0.9)
    assert _peak(lambda: head_stats(hidden[:3], weight, 3, sampling), weight) < BUDGET


@pytest.mark.parametrize("top", [None, TopK(count=64, tolerance=1e9, longest=9.0)], ids=["exact", "top"])
def test_a_soft_embedding_does_not_take_more(rows: tuple[Tensor, Tensor], top: TopK | None) -> None:
    draw = SoftDraw(numbers(POSITIONS), torch.ones(POSITIONS, dtype=torch.bool))
    temperature = torch.full((POSITIONS,), 0.7)
    assert _peak(lambda: soft_head(*rows, 30.0, temperature, draw, top=top), rows[1]) < BUDGET


def _sampling(count: int, temperature: float, *, top_p: float = 1.0, gumbel: bool = False) -> Sampling:
    return Sampling(
        torch.full((count,), temperature),
        torch.zeros(count, dtype=torch.int64),
        torch.full((count,), top_p),
        numbers(count),
        keys(count) if gumbel else None,
    )


def _peak(run: Callable[[], object], weight: Tensor) -> int:
    """Bytes at most besides those of the weight, whose storage counts from its first view on."""
    with StorageMeter() as meter:
        view = weight.view(-1)
        before = meter.live
        run()
        del view
    return meter.peak - before
