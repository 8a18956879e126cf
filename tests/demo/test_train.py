"""Training: the optimizer, the schedule, stopping and going on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from easel.demo.optimizer import average_into, orthogonalise
from easel.demo.recorder import METRICS_FILE
from easel.demo.run_state import STATE_FILE
from easel.demo.train import learning_rate_factor, parse_options, train
from easel.demo.workers import Workers, run_together
from tests.demo.options import small_options


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.manual_seed(0))))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_the_average_moves_towards_the_model() -> None:
    average, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    average.weight.data.fill_(0.0)
    model.weight.data.fill_(1.0)
    average_into(average, model, step=10_000, decay=0.9)
    assert average.weight.item() == pytest.approx(0.1)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (9, 1.0), (50, 1.0), (90, 0.5), (100, 0.0)])
def test_the_rate_warms_up_stays_and_decays_to_zero(step: int, factor: float) -> None:
    options = parse_options(["--out", "x", "--steps", "100", "--warmup-steps", "10", "--decay-steps", "20"])
    assert learning_rate_factor(step, options) == pytest.approx(factor)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / STATE_FILE, weights_only=True)["model"]


def losses_of(folder: Path) -> list[float]:
    return [json.loads(line)["loss/add"] for line in (folder / METRICS_FILE).read_text().splitlines()]


def test_a_run_stopped_and_resumed_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    train(Workers(), small_options(whole, "--steps", "4"))
    train(Workers(), small_options(first, "--steps", "4", "--save-every", "2", "--minutes", "0"))
    resume = ("--resume", str(first / STATE_FILE))
    train(Workers(), small_options(second, "--steps", "4", *resume))
    assert len(losses_of(first)) == 1
    assert losses_of(whole) == losses_of(first) + losses_of(second)
    expected = weights_of(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(second).items())


def test_two_workers_train_one_model(tmp_path: Path) -> None:
    options = small_options(tmp_path, "--steps", "2")
    run_together(2, train, options)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 2
