"""LLaDA and Dream as they are served unless exact steps are asked for: the dual cache, token for token."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from easel.bench.oracles.cases import random_requests
from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.dream import DreamOracle, write_dream
from easel.bench.oracles.dual_cache import DualCacheOracle
from easel.bench.oracles.llada import LladaOracle, write_llada
from easel.scheduler.request import Request
from easel.worker.config import EngineConfig
from easel.worker.loading import load_engine
from tests.worker.driving import assert_all_free, generate

PERIODS: tuple[int, ...] = (1, 2, 3, 8, 100)
REQUESTS = 24
WRITERS: dict[str, Callable[[Path, Sizes], LladaOracle | DreamOracle]] = {
    "llada": write_llada,
    "dream": write_dream,
}


@pytest.fixture(scope="module", params=WRITERS)
def exact(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LladaOracle | DreamOracle:
    return WRITERS[request.param](tmp_path_factory.mktemp("checkpoint"), Sizes())


def _requests(oracle: LladaOracle | DreamOracle, seed: int) -> list[Request]:
    """Every period occurs."""
    return [
        replace(request, diffusion=replace(request.diffusion, rebuild_every=PERIODS[index % len(PERIODS)]))
        for index, request in enumerate(random_requests(oracle, REQUESTS, seed))
    ]


@pytest.mark.parametrize(("slots", "page_size"), [(1, 8), (5, 16), (32, 4)])
def test_the_dual_cache_generates_what_transformers_does_with_frozen_keys(
    exact: LladaOracle | DreamOracle, slots: int, page_size: int
) -> None:
    config = EngineConfig(slots=slots, pages=256, page_size=page_size, dtype="float32")
    engine = load_engine(exact.path, config)
    oracle, requests = DualCacheOracle(exact), _requests(exact, seed=slots)
    found = generate(engine, requests)
    for request in requests:
        assert found[request.request_id] == oracle.generate(request), request
    assert_all_free(engine)


def test_it_is_an_approximation_and_a_rebuild_at_every_step_is_none(
    exact: LladaOracle | DreamOracle,
) -> None:
    """Otherwise the test above could not tell one from the other."""
    oracle, requests = DualCacheOracle(exact), _requests(exact, seed=2)
    same = dict.fromkeys(PERIODS, 0)
    for request in requests:
        period = request.diffusion.rebuild_every
        exactly = replace(request, diffusion=replace(request.diffusion, rebuild_every=0))
        same[period] += oracle.generate(request) == exact.generate(exactly)
    counts = [sum(r.diffusion.rebuild_every == period for r in requests) for period in PERIODS]
    assert same[1] == counts[0]
    assert sum(same.values()) < REQUESTS


def test_with_one_layer_it_is_exact(exact: LladaOracle | DreamOracle, tmp_path: Path) -> None:
    """Keys then depend on their own tokens alone, which do not change outside the block."""
    writer = WRITERS["llada" if isinstance(exact, LladaOracle) else "dream"]
    shallow = writer(tmp_path, Sizes(layers=1))
    engine = load_engine(shallow.path, EngineConfig(slots=4, dtype="float32"))
    requests = _requests(shallow, seed=3)
    found = generate(engine, requests)
    for request in requests:
        exactly = replace(request, diffusion=replace(request.diffusion, rebuild_every=0))
        assert found[request.request_id] == shallow.generate(exactly)
