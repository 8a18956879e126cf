"""The contest with transformers on a model so small that only its rules can be checked."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from easel.bench.oracles.diffusion_gemma import Settings, canvas_logits
from easel.bench.oracles.passes import engine_logits
from easel.bench.vs_transformers import (
    BATCH,
    ENGINE_MANY,
    LOOP_MANY,
    RATIOS,
    Contest,
    Load,
    Shape,
    measure,
    write_model,
)
from easel.worker.config import EngineConfig
from easel.worker.loading import load_engine

SHAPE = Shape(vocabulary=64, canvas=8, hidden=32, layers=2, heads=4, head_dim=8, experts=4)
LOAD = Load(prompt=5, canvases=2, steps=2)


class Hasty(Load):
    """Asks for fewer steps than it says."""

    def settings(self) -> Settings:
        return replace(Load.settings(self), steps=self.steps - 1)


def test_every_variant_gets_a_figure_for_each_round() -> None:
    outcome = measure(SHAPE, LOAD, rounds=2)
    assert {len(found.rounds) for found in outcome.by_work.values()} == {2}
    assert outcome.by_wall.keys() == outcome.by_work.keys()
    assert outcome.ratios().keys() == RATIOS.keys()
    many = outcome.ratios()[f"{BATCH} concurrent, over one batch"].rounds
    ours, theirs = (outcome.by_work[name].rounds for name in (ENGINE_MANY, LOOP_MANY))
    assert many == pytest.approx([a / b for a, b in zip(ours, theirs, strict=True)])


def test_both_sides_run_the_same_weights(tmp_path: Path) -> None:
    reference = write_model(tmp_path, SHAPE, LOAD)
    engine = load_engine(tmp_path, EngineConfig(slots=1, dtype="float32"))
    tokens = list(range(5, 29))
    expected = canvas_logits(reference, [tokens[:-8]], tokens[-8:])
    torch.testing.assert_close(engine_logits(engine, tokens)[-8:], expected, rtol=0.0, atol=5e-5)


def test_a_side_that_takes_other_steps_than_asked_is_refused(tmp_path: Path) -> None:
    reference = write_model(tmp_path, SHAPE, LOAD)
    engine = load_engine(tmp_path, EngineConfig(slots=BATCH, dtype="float32"))

    contest = Contest(SHAPE, Hasty(prompt=5, canvases=1), engine, reference)
    for run in contest.variants().values():
        with pytest.raises(RuntimeError, match="step"):
            run()
