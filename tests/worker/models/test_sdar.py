"""SDAR and SDAR-MoE generate, token for token, what their published loop does on Hugging Face's models."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import Qwen3ForCausalLM

from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.sdar import SdarOracle, write_sdar, write_sdar_moe
from tests.checkpoints import MASK_ID
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
from tests.worker.reference import ReferenceModel

VARIANTS: dict[str, tuple[Callable[[Path, Sizes], SdarOracle], Sizes, int]] = {  # and how many requests
    "blocks-of-4": (write_sdar, Sizes(block_length=4, kv_heads=1, tied=True), 20),
    "blocks-of-8": (write_sdar, Sizes(block_length=8, kv_heads=4, shards=3), 24),
    "blocks-of-16": (write_sdar, Sizes(block_length=16, heads=3, kv_heads=1), 12),
    "blocks-of-32": (write_sdar, Sizes(block_length=32), 5),
    "blocks-of-64": (write_sdar, Sizes(block_length=64), 3),
    "experts": (write_sdar_moe, Sizes(shards=2), 20),
}


@pytest.fixture(scope="module")
def rigs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rig]:
    return {
        name: build_rig(tmp_path_factory.mktemp("sdar"), write, sizes, count)
        for name, (write, sizes, count) in VARIANTS.items()
    }


@pytest.fixture(params=VARIANTS)
def rig(request: pytest.FixtureRequest, rigs: dict[str, Rig]) -> Rig:
    return rigs[request.param]


def test_float32_logits_are_those_of_hugging_face(rig: Rig) -> None:
    check_float32_logits(rig)


def test_bfloat16_logits_are_as_close_to_float32_as_those_of_hugging_face(rig: Rig) -> None:
    check_bfloat16_logits(rig)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_requests_generate_what_the_published_loop_does(rig: Rig, layout: Layout) -> None:
    check_generations(rig, layout)


def test_prompts_read_from_the_cache_generate_the_same(rig: Rig) -> None:
    check_cached_prefixes(rig)


def test_resumed_requests_generate_the_same_later_blocks(rig: Rig) -> None:
    check_resumed(rig)


def test_recomputing_everything_at_every_step_is_exact(rig: Rig) -> None:
    check_rebuilding_every_step(rig)


def test_the_cases_use_every_rule_and_end_in_both_ways(rigs: dict[str, Rig]) -> None:
    check_coverage(rigs.values())


def test_the_published_loop_agrees_with_one_that_stops_within_a_block(rigs: dict[str, Rig]) -> None:
    """Two formulations: SDAR's decides a whole block, the other one only what will be read."""
    rig = rigs["blocks-of-8"]
    checkpoint = rig.oracle.checkpoint
    assert isinstance(checkpoint.model, Qwen3ForCausalLM)
    other = ReferenceModel(checkpoint.model, checkpoint.block_length, MASK_ID, checkpoint.eos_ids)
    for case in rig.cases[:12]:
        assert other.generate(case) == rig.expected(case), case
