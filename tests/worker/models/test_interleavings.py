"""Of every family: whatever else happens, a finished request comes out as it does alone."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easel.bench.oracles.cases import random_tokens
from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.diffusion_gemma import Settings, TinyGemma, write_tiny
from easel.bench.oracles.dream import write_dream
from easel.bench.oracles.llada import write_llada
from easel.bench.oracles.llada2 import write_llada2
from easel.bench.oracles.sdar import write_sdar, write_sdar_moe
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import PhasePolicy
from easel.scheduler.request import DiffusionParams, FinishReason, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine
from tests.worker.driving import assert_all_free, drain, generate, generations
from tests.worker.reference import Generation
from tests.worker.test_interleavings import OPERATIONS, POOL, Interleaving

BLOCK = 8
VOCABULARY = 105
MASKED = [
    DiffusionParams(steps=8, threshold=0.5),
    DiffusionParams(steps=3, threshold=0.9),
    DiffusionParams(steps=8, threshold=0.7, rebuild_every=1),
    DiffusionParams(steps=8, threshold=0.9, rebuild_every=3),
]
EDITED = DiffusionParams(steps=8, threshold=0.7, edit_threshold=0.6)
RENOISED = [
    DiffusionParams(
        steps=steps, entropy_bound=bound, stop_entropy=0.5, temperature_start=0.8, temperature_end=0.4
    )
    for steps, bound in ((3, 0.5), (6, 2.0), (8, 8.0))
]


@dataclass(frozen=True, slots=True)
class Family:
    """A tiny checkpoint, a pool of requests for it, and what each came to alone."""

    path: Path
    pool: list[Request]
    _alone: dict[Request, Generation] = field(default_factory=dict[Request, Generation])

    def engine(self, layout: "Layout") -> Engine:
        policy = PhasePolicy(
            refresh_tokens=layout.refresh_tokens, target_seconds=1e3, fuse_commits=layout.fuse_commits
        )
        config = EngineConfig(
            slots=layout.slots,
            pages=layout.pages,
            page_size=layout.page_blocks * BLOCK,
            dtype="float32",
            partial=True,
            compose_policy=layout.compose_policy,
            policy=policy,
        )
        return load_engine(self.path, config)

    def alone(self, request: Request) -> Generation:
        key = replace(request, request_id="alone")
        if key not in self._alone:
            self._alone[key] = generate(self.engine(Layout(slots=1, pages=64)), [key])["alone"]
        return self._alone[key]


@dataclass(frozen=True, slots=True)
class Layout:
    slots: int = 4
    pages: int = 12
    page_blocks: int = 1
    refresh_tokens: int = 64
    fuse_commits: bool = True
    compose_policy: ComposePolicy = ComposePolicy.BALANCED


LAYOUTS = st.builds(
    Layout,
    slots=st.integers(1, 4),
    pages=st.integers(8, 16),
    page_blocks=st.sampled_from([1, 2]),
    refresh_tokens=st.integers(1, 48),
    fuse_commits=st.booleans(),
    compose_policy=st.sampled_from(ComposePolicy),
)
SIZES = Sizes(block_length=BLOCK)
WRITERS: dict[str, tuple[Callable[[Path], object], list[DiffusionParams]]] = {
    "sdar": (lambda path: write_sdar(path, SIZES), MASKED),
    "sdar-moe": (lambda path: write_sdar_moe(path, SIZES), MASKED),
    "llada2": (lambda path: write_llada2(path, SIZES), [*MASKED, EDITED]),
    "llada": (lambda path: write_llada(path, SIZES), MASKED),
    "dream": (lambda path: write_dream(path, SIZES), MASKED),
    "diffusion-gemma": (
        lambda path: write_tiny(path, TinyGemma(window=20, canvas_length=BLOCK), Settings()),
        RENOISED,
    ),
}


@pytest.fixture(scope="module", params=WRITERS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    write, rules = WRITERS[request.param]
    path = tmp_path_factory.mktemp("checkpoint")
    write(path)
    return Family(path, _pool(rules, sampled=request.param == "diffusion-gemma"))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=LAYOUTS, operations=OPERATIONS)
def test_in_any_interleaving_each_finished_request_equals_its_run_alone(
    family: Family, layout: Layout, operations: list[tuple[str, int]]
) -> None:
    engine = family.engine(layout)
    run = Interleaving(engine, family.pool, {}, [], set())
    for operation, value in operations:
        run.act(operation, value)
        engine.check()
    run.events += drain(engine)
    finished = generations(run.events)
    assert finished.keys() == run.submitted.keys()
    for name, generation in finished.items():
        if name in run.cancelled:
            assert generation.finish is FinishReason.CANCELLED
        else:
            assert generation == family.alone(run.submitted[name])
    assert_all_free(engine)


def _pool(rules: list[DiffusionParams], *, sampled: bool) -> list[Request]:
    """Half of the requests share beginnings; prompts are shorter and longer than a window."""
    draw = Random(8)
    shared = random_tokens(draw, 2 * BLOCK, VOCABULARY)
    requests: list[Request] = []
    for index in range(POOL):
        own = random_tokens(draw, draw.randint(1, 4 * BLOCK), VOCABULARY)
        temperature = 1.0 if sampled or index % 3 == 0 else 0.0
        requests.append(
            Request(
                request_id=str(index),
                prompt=shared + own[: 2 * index] if index % 2 else own,
                sampling=SamplingParams(
                    max_tokens=draw.randint(1, 3 * BLOCK), temperature=temperature, seed=index
                ),
                diffusion=rules[index % len(rules)],
            )
        )
    return requests
