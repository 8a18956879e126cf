"""Engines whose matrices were rounded to float8, or dequantised, or stay as they are stored."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import easel.kernels.linear
from easel.bench.oracles.float8 import Float8Format, write_float8
from easel.bench.oracles.passes import engine_logits
from easel.kernels.fp8 import Fp8Weight, dequantise
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.engine import Engine
from easel.worker.footprint import Footprint
from easel.worker.loading import load_engine
from easel.worker.models.registry import definition_of
from easel.worker.parameters import scale_of
from easel.worker.sketch import sketch_directory
from easel.worker.storage import Storage
from tests.worker.driving import generate
from tests.worker.float8_cases import CONFIG, FAMILIES, KEPT, load, write_family
from tests.worker.reference import Generation
from tests.worker.storage_meter import StorageMeter

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
FORMATS = (Float8Format.TRANSFORMERS_BLOCKS, Float8Format.COMPRESSED_CHANNELS)


@pytest.fixture(scope="module")
def random_of(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """By family, a checkpoint that is not quantised."""
    return {family: write_family(tmp_path_factory.mktemp("float"), family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def random(request: pytest.FixtureRequest, random_of: Mapping[str, Path]) -> Path:
    return random_of[request.param]


def generated(path: Path, quantise: str = "none") -> dict[str, Generation]:
    engine = load_engine(path, replace(CONFIG, quantise=quantise))
    sampling = SamplingParams(max_tokens=40, temperature=1.0)
    requests = [
        Request(str(index), tuple(range(5, 12 + 9 * index)), sampling, DiffusionParams(steps=3))
        for index in range(3)
    ]
    return generate(engine, requests)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_engine_generates_what_it_does_from_the_numbers_that_are_meant(
    tmp_path: Path, random: Path, kind: Float8Format
) -> None:
    published, meant = tmp_path / "published", tmp_path / "meant"
    write_float8(random, kind, published=published, meant=meant)
    assert generated(published) == generated(meant) != generated(random)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_model_whose_matrices_stay_float8_differs_only_by_rounded_activations(
    tmp_path: Path, random: Path, kind: Float8Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, meant = tmp_path / "published", tmp_path / "meant"
    write_float8(random, kind, published=published, meant=meant)
    kept, exact = _kept(published), load_engine(meant, CONFIG)
    assert _distance(kept, exact) > 1e-3

    def unrounded(x: Tensor, weight: Fp8Weight, bias: Tensor | None) -> Tensor:
        return F.linear(x, dequantise(weight, x.dtype), bias)

    monkeypatch.setattr(easel.kernels.linear, "fp8_linear", unrounded)
    assert _distance(kept, exact) < 1e-5


@GPU
@pytest.mark.parametrize("kind", FORMATS)
def test_a_gpu_says_what_the_definition_of_its_products_does(
    tmp_path: Path, random: Path, kind: Float8Format
) -> None:
    published = tmp_path / "published"
    write_float8(random, kind, published=published, meant=tmp_path / "meant")
    assert _distance(load_engine(published, replace(CONFIG, device="cuda")), _kept(published)) < 0.05


def _kept(path: Path) -> Engine:
    """On a CPU, yet with the numbers that a GPU would keep."""
    engine, sketch = load_engine(path, CONFIG), sketch_directory(path)
    model = definition_of(sketch.info.architecture).build(sketch.dimensions, load(path, KEPT))
    engine.runner.machine = replace(engine.runner.machine, model=model)
    return engine


def _distance(found: Engine, exact: Engine) -> float:
    """Between the logits of a masked block after two others, against the size of the exact ones' spread."""
    tokens = (*range(5, 37), *[3] * 16)
    ours, theirs = (engine_logits(engine, tokens).cpu()[-16:] for engine in (found, exact))
    return float((ours - theirs).norm() / (theirs - theirs.mean(-1, keepdim=True)).norm())


@pytest.mark.parametrize("quantise", ["none", "fp8"])
def test_loading_takes_no_more_than_was_predicted(tmp_path: Path, random: Path, quantise: str) -> None:
    published = tmp_path / "published"
    write_float8(random, Float8Format.TRANSFORMERS_BLOCKS, published=published, meant=tmp_path / "meant")
    path = random if quantise == "fp8" else published
    config = replace(CONFIG, quantise=quantise)
    predicted = Footprint.of(sketch_directory(path), config, torch.float32).total(2, 64)
    with StorageMeter() as meter:
        load_engine(path, config)
    assert meter.peak <= predicted


def test_quantising_on_loading_rounds_matrices_and_nothing_else(
    random: Path,
) -> None:
    """Each number moves by up to a sixteenth: 2 to 3 % of a random matrix."""
    exact, found = load(random), load(random, Storage(quantise=True))
    kept = load(random, Storage(quantise=True, float8=True))
    for name, tensor in found.items():
        if scale_of(name) not in kept:
            assert torch.equal(tensor, exact[name])
            continue
        weight = Fp8Weight(kept[name], kept[scale_of(name)])
        assert weight.per_channel
        assert torch.equal(tensor, dequantise(weight, torch.float32))
        assert 0.02 < float((tensor - exact[name]).norm() / exact[name].norm()) < 0.03
    assert generated(random, quantise="fp8") != generated(random)
