"""In batch-invariant mode a request's hidden states and statistics are the same bits in any company."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
import torch

from easel.bench.oracles.cases import random_sampling, random_tokens
from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.diffusion_gemma import Settings, TinyGemma, write_tiny
from easel.bench.oracles.dream import write_dream
from easel.bench.oracles.llada import write_llada
from easel.bench.oracles.llada2 import write_llada2
from easel.bench.oracles.sdar import write_sdar, write_sdar_moe
from easel.scheduler.request import DiffusionParams, Request
from easel.worker.config import EngineConfig, LoopKind
from easel.worker.engine import Engine
from easel.worker.errors import WorkerError
from easel.worker.invariance import choose_invariance
from easel.worker.loading import load_engine
from tests.worker.driving import generate
from tests.worker.step_record import differing, steps_of, steps_together

BLOCK = 8
CPU, GPU = torch.device("cpu"), torch.device("cuda")
LONGEST = 160  # tokens of a prompt: more than two tiles of a causal chunk
WRITERS: dict[str, Callable[[Path], object]] = {
    "sdar": lambda path: write_sdar(path, Sizes(block_length=BLOCK)),
    "sdar-moe": lambda path: write_sdar_moe(path, Sizes(block_length=BLOCK)),
    "llada2": lambda path: write_llada2(path, Sizes(block_length=BLOCK)),
    "llada": lambda path: write_llada(path, Sizes(block_length=BLOCK)),
    "dream": lambda path: write_dream(path, Sizes(block_length=BLOCK)),
    "diffusion-gemma": lambda path: write_tiny(path, TinyGemma(window=20, canvas_length=BLOCK), Settings()),
}
RENOISED = DiffusionParams(steps=4, entropy_bound=0.3)


@dataclass(frozen=True, slots=True)
class Family:
    """A tiny checkpoint, engines that run it, and requests for it."""

    name: str
    path: Path

    def engine(self, mode: str = "always", dtype: str = "float32", slots: int = 6) -> Engine:
        config = EngineConfig(
            slots=slots, pages=256, page_size=BLOCK, dtype=dtype, partial=True, batch_invariant=mode
        )
        return load_engine(self.path, config)

    def requests(self, count: int, seed: int, most_tokens: int = 2 * BLOCK) -> list[Request]:
        """Each with a seed of its own; some prompts begin alike."""
        draw = Random(seed)
        shared = random_tokens(draw, LONGEST)
        return [
            Request(
                request_id=f"{seed}/{index}",
                prompt=shared[: draw.choice([0, 24, 91])]
                + random_tokens(draw, draw.randint(1, LONGEST - 91)),
                sampling=replace(
                    random_sampling(draw, draw.randint(1, most_tokens)), seed=1000 * seed + index
                ),
                diffusion=self._diffusion(index),
            )
            for index in range(count)
        ]

    def _diffusion(self, index: int) -> DiffusionParams:
        if self.name == "diffusion-gemma":
            return RENOISED
        return DiffusionParams(steps=1 + index % 4, threshold=0.6, rebuild_every=(0, 0, 2)[index % 3])


@pytest.fixture(scope="module", params=WRITERS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    path = tmp_path_factory.mktemp("checkpoint")
    WRITERS[request.param](path)
    return Family(request.param, path)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """The family of which everything depends on the batch if nothing is done about it."""
    path = tmp_path_factory.mktemp("experts")
    WRITERS["sdar-moe"](path)
    return Family("sdar-moe", path)


def test_a_request_alone_and_in_100_random_batches_has_the_same_bits_at_every_step(experts: Family) -> None:
    one = experts.requests(1, seed=1, most_tokens=BLOCK)[0]
    alone, engine = steps_of(experts.engine(), [one]), experts.engine()
    assert alone
    for number in range(100):
        draw = Random(number)
        beside = experts.requests(draw.randint(1, 3), seed=2 + number, most_tokens=3)
        renamed = replace(one, request_id=f"one/{number}", tenant=str(number % 7))
        found = steps_together(engine, [renamed, *beside], draw)
        assert found.keys() >= alone.keys()
        assert differing(alone, found) == [], number


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_familys_requests_together_have_the_bits_that_each_has_alone(
    family: Family, dtype: str
) -> None:
    """Prompts in chunks of any size or from the cache, commits fused or not, all phases mixed."""
    requests = family.requests(6, seed=3)
    alone = steps_of(family.engine(dtype=dtype), requests)
    engine = family.engine(dtype=dtype)
    for number in range(3 if dtype == "float32" else 1):
        renamed = [replace(one, request_id=f"{number}/{one.request_id}") for one in requests]
        assert differing(alone, steps_together(engine, renamed, Random(number))) == [], number


def test_a_resumed_request_has_the_bits_of_one_that_went_on(family: Family) -> None:
    """Its committed blocks are prefilled in one go, where the other's were committed one by one."""
    whole = [
        replace(one, sampling=replace(one.sampling, max_tokens=4 * BLOCK))
        for one in family.requests(3, seed=4)
    ]
    alone = steps_of(family.engine(), whole)
    blocks = {name: found.blocks for name, found in generate(family.engine(), whole).items()}
    resumed = [
        replace(one, committed=sum(blocks[one.request_id][:kept], ()))
        for one in whole
        for kept in range(1, len(blocks[one.request_id]))
    ]
    assert resumed
    for one in resumed:
        found = steps_of(family.engine(), [one])
        first = min(key[1] for key in found)
        assert first > 0
        assert differing({key: bits for key, bits in alone.items() if key[1] >= first}, found) == []


@pytest.mark.parametrize("name", ["sdar-moe", "llada2", "diffusion-gemma"])
def test_without_the_mode_bits_depend_on_the_company(name: str, tmp_path: Path) -> None:
    """Were there nothing to find, the tests above would show nothing.

    In SDAR's dense layers it takes longer prefixes: see what padding does in tests/kernels/test_row_tiles.py.
    """
    WRITERS[name](tmp_path)
    family = Family(name, tmp_path)
    requests = family.requests(6, seed=3)
    alone = steps_of(family.engine("never"), requests)
    assert differing(alone, steps_together(family.engine("never"), requests, Random(0)))


@pytest.mark.parametrize(
    ("mode", "device", "dtype", "on"),
    [
        ("auto", CPU, torch.float32, True),
        ("auto", CPU, torch.bfloat16, False),
        ("auto", GPU, torch.bfloat16, False),
        ("never", CPU, torch.float32, False),
        ("always", CPU, torch.bfloat16, True),
        ("always", GPU, torch.bfloat16, True),
    ],
)
def test_the_mode_is_on_where_it_was_measured_to_be_cheap_or_asked_for(
    mode: str, device: torch.device, dtype: torch.dtype, on: bool
) -> None:
    assert choose_invariance(EngineConfig(batch_invariant=mode), device, dtype) == on


def test_what_cannot_be_invariant_is_refused_by_name() -> None:
    always = EngineConfig(batch_invariant="always")
    with pytest.raises(WorkerError, match="float8"):
        choose_invariance(always, GPU, torch.bfloat16, float8=True)
    with pytest.raises(WorkerError, match="persistent"):
        choose_invariance(replace(always, loop=LoopKind.PERSISTENT), GPU, torch.bfloat16)
    with pytest.raises(WorkerError, match="must be one of auto, always, never"):
        choose_invariance(EngineConfig(batch_invariant="on"), CPU, torch.float32)


def test_where_always_cannot_be_auto_is_off() -> None:
    config = EngineConfig(loop=LoopKind.PERSISTENT)
    assert not choose_invariance(config, CPU, torch.float32)
