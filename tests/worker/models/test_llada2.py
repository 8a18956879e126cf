"""LLaDA2.0 and 2.1 generate, token for token, what their published loops do on Hugging Face's GLM-4-MoE."""

from dataclasses import replace

import pytest

from easel.bench.oracles.cases import random_requests
from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.llada2 import EDITING_PASSES, write_llada2
from easel.scheduler.request import DiffusionParams, FinishReason
from tests.worker.driving import generate
from tests.worker.models.parity import (
    LAYOUTS,
    Layout,
    Rig,
    build_rig,
    check_bfloat16_logits,
    check_cached_prefixes,
    check_coverage,
    check_float32_logits,
    check_generations,
    check_rebuilding_every_step,
    check_resumed,
)

SIZES = {"blocks-of-8": Sizes(shards=2), "three-layers": Sizes(block_length=16, layers=3, kv_heads=1)}
COUNTS = {"blocks-of-8": 24, "three-layers": 5}


@pytest.fixture(scope="module")
def rigs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rig]:
    return {
        name: build_rig(tmp_path_factory.mktemp("llada2"), write_llada2, sizes, COUNTS[name])
        for name, sizes in SIZES.items()
    }


@pytest.fixture(params=SIZES)
def rig(request: pytest.FixtureRequest, rigs: dict[str, Rig]) -> Rig:
    return rigs[request.param]


@pytest.fixture(scope="module")
def editing(rigs: dict[str, Rig]) -> Rig:
    """Requests whose decided tokens may change, mixed with some whose may not."""
    rig = rigs["blocks-of-8"]
    edited = random_requests(rig.oracle, 10, seed=21, editing=True, blocks=2)
    return replace(rig, cases=(*edited, *rig.cases[:6]))


def test_float32_logits_are_those_of_hugging_face(rig: Rig) -> None:
    check_float32_logits(rig)


def test_bfloat16_logits_are_as_close_to_float32_as_those_of_hugging_face(rig: Rig) -> None:
    check_bfloat16_logits(rig)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_requests_generate_what_the_published_loop_does(rig: Rig, layout: Layout) -> None:
    check_generations(rig, layout)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_requests_with_editing_generate_what_the_published_loop_does(editing: Rig, layout: Layout) -> None:
    check_generations(editing, layout)


def test_prompts_read_from_the_cache_generate_the_same(rig: Rig) -> None:
    check_cached_prefixes(rig)


def test_prompts_read_from_the_cache_generate_the_same_with_editing(editing: Rig) -> None:
    check_cached_prefixes(editing)


def test_resumed_requests_generate_the_same_later_blocks(editing: Rig) -> None:
    check_resumed(editing)


def test_recomputing_everything_at_every_step_is_exact(rig: Rig) -> None:
    check_rebuilding_every_step(rig)


def test_the_cases_use_every_rule_and_end_in_both_ways(rigs: dict[str, Rig]) -> None:
    check_coverage(rigs.values())


def test_the_editing_cases_end_in_both_ways_and_some_only_at_the_limit_of_passes(editing: Rig) -> None:
    expected = [editing.expected(case) for case in editing.cases[:10]]
    assert {generation.finish for generation in expected} == {FinishReason.STOP, FinishReason.LENGTH}
    steps = [count for generation in expected for count in generation.steps]
    assert max(steps) > EDITING_PASSES
    assert min(steps) <= editing.oracle.block_length


def test_editing_that_nothing_is_sure_enough_for_costs_one_pass_and_changes_nothing(rig: Rig) -> None:
    length = rig.oracle.block_length
    plain = [replace(case, diffusion=DiffusionParams(steps=length)) for case in rig.cases[:2]]
    edited = [replace(case, diffusion=DiffusionParams(steps=length, edit_threshold=1.0)) for case in plain]
    found = generate(rig.engine(), edited)
    rig.assert_generated(found, edited)
    for before, after in zip(plain, edited, strict=True):
        assert rig.expected(after).tokens == rig.expected(before).tokens
