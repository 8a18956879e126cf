"""The comparison of all families that `python -m easel.bench.parity` prints."""

from dataclasses import replace
from pathlib import Path

import pytest

from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.diffusion_gemma import TinyGemma
from easel.bench.oracles.gemma import random_gemma_requests, write_gemma
from easel.bench.oracles.masked import Generation
from easel.bench.oracles.passes import run_requests
from easel.bench.oracles.sdar import write_sdar
from easel.bench.parity import Subject, compare, subjects
from easel.scheduler.request import DiffusionParams, FinishReason, Request, SamplingParams


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    tiny = TinyGemma(eos_token_ids=(1, 20, 30, 50, 60))
    oracle = write_gemma(tmp_path_factory.mktemp("gemma"), tiny)
    return Subject("DiffusionGemma", oracle, random_gemma_requests(oracle, 8, seed=3))


def test_diffusion_gemma_generates_what_transformers_does_through_the_whole_engine(gemma: Subject) -> None:
    results = list(compare(gemma))
    assert [result for result in results if not result.passed] == []
    assert len(results) >= 6
    assert all(result.tokens > 50 for result in results[1:])
    assert {FinishReason.STOP, FinishReason.LENGTH} == {
        gemma.oracle.generate(request).finish for request in gemma.requests
    }


def test_resumed_diffusion_gemma_requests_generate_the_same_later_canvases(gemma: Subject) -> None:
    whole = {request.request_id: gemma.oracle.generate(request) for request in gemma.requests}
    resumed = {
        replace(request, request_id=f"{name}+{kept}", committed=sum(blocks[:kept], ())): Generation(
            blocks[kept:], steps[kept:], whole[name].finish
        )
        for request in gemma.requests
        for name in [request.request_id]
        for blocks, steps in [(whole[name].blocks, whole[name].steps)]
        for kept in range(1, len(blocks))
    }
    assert resumed
    found = run_requests(gemma.engine(), resumed)
    assert found == {request.request_id: later for request, later in resumed.items()}


def test_every_family_has_requests_and_a_checkpoint_that_the_engine_loads(tmp_path: Path) -> None:
    found = {subject.name: subject for subject in subjects(tmp_path, prompts=2)}
    families = {subject.engine().model.family.name for subject in found.values()}
    assert families == {"SDAR", "SDAR-MoE", "LLaDA2", "LLaDA", "Dream", "DiffusionGemma"}
    assert [name for name, subject in found.items() if subject.edits] == ["LLaDA2.1"]


def test_an_engine_that_computes_something_else_does_not_pass(tmp_path: Path) -> None:
    """The engine reads a checkpoint of other weights than the plain loop's."""
    ours, theirs = (write_sdar(tmp_path / str(seed), Sizes(seed=seed)) for seed in (1, 2))
    oracle = replace(ours, checkpoint=replace(ours.checkpoint, path=theirs.path))
    request = Request("r", (7, 8, 9), SamplingParams(max_tokens=16), DiffusionParams(steps=4))
    results = list(compare(Subject("SDAR", oracle, [request])))
    assert [result.passed for result in results] == [False] * len(results)
