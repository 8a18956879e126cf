"""LLaDA and Dream generate, token for token, what their loops do on Hugging Face's models that see all."""

import pytest

from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.dream import write_dream
from easel.bench.oracles.llada import write_llada
from tests.worker.models.parity import (
    LAYOUTS,
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

WRITERS = {"llada": write_llada, "dream": write_dream}
SIZES = {"blocks-of-8": Sizes(kv_heads=1, shards=2), "blocks-of-5": Sizes(block_length=5)}
COUNTS = {"blocks-of-8": 24, "blocks-of-5": 8}


@pytest.fixture(scope="module", params=WRITERS)
def rigs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rig]:
    return {
        name: build_rig(tmp_path_factory.mktemp(request.param), WRITERS[request.param], sizes, COUNTS[name])
        for name, sizes in SIZES.items()
    }


@pytest.fixture(params=SIZES)
def rig(request: pytest.FixtureRequest, rigs: dict[str, Rig]) -> Rig:
    return rigs[request.param]


def test_float32_logits_are_those_of_hugging_face(rig: Rig) -> None:
    check_float32_logits(rig)


def test_bfloat16_logits_are_as_close_to_float32_as_those_of_hugging_face(rig: Rig) -> None:
    check_bfloat16_logits(rig)


@pytest.mark.parametrize("name", ["alone", "pages-of-two-blocks", "all-at-once"])
def test_requests_generate_what_the_published_loop_does(rig: Rig, name: str) -> None:
    check_generations(rig, LAYOUTS[name])


def test_a_repeated_prompt_generates_the_same_and_nothing_of_it_is_cached(rig: Rig) -> None:
    check_cached_prefixes(rig)


def test_resumed_requests_generate_the_same_later_blocks(rig: Rig) -> None:
    check_resumed(rig)


def test_recomputing_everything_at_every_step_is_exact(rig: Rig) -> None:
    check_rebuilding_every_step(rig)


def test_the_cases_use_every_rule_and_end_in_both_ways(rigs: dict[str, Rig]) -> None:
    check_coverage(rigs.values())
