"""Partial steps of block-causal models: what they read, and when they are exact.

In a model of one layer a position's key and value depend on its own token alone, so a partial
step is exact there; anything it read from a wrong place, or too late, would change the tokens.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from easel.scheduler.errors import InvalidParameter
from easel.scheduler.request import Request
from tests.worker.driving import assert_all_free, generate
from tests.worker.tiny import Dimensions, Layout, TinyCheckpoint

PARTIAL = Layout(partial=True)


def _with_period(requests: list[Request], period: int) -> list[Request]:
    return [
        replace(request, diffusion=replace(request.diffusion, rebuild_every=period)) for request in requests
    ]


@pytest.mark.parametrize("period", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("page_blocks", [1, 2])
def test_partial_steps_are_exact_where_keys_depend_on_nothing_else(
    checkpoint_of: Callable[[Dimensions], TinyCheckpoint], period: int, page_blocks: int
) -> None:
    checkpoint = checkpoint_of(Dimensions(layers=1))
    requests = checkpoint.requests(20, seed=3)
    engine = checkpoint.engine(replace(PARTIAL, page_blocks=page_blocks))
    found = generate(engine, _with_period(requests, period))
    for request in requests:
        assert found[request.request_id] == checkpoint.expected(request)
    assert_all_free(engine)


def test_rebuilding_every_step_is_exact_in_any_model(tiny: TinyCheckpoint) -> None:
    requests = tiny.requests(20, seed=4)
    found = generate(tiny.engine(PARTIAL), _with_period(requests, 1))
    for request in requests:
        assert found[request.request_id] == tiny.expected(request)


def test_a_canvas_alone_comes_out_as_it_does_in_a_batch(tiny: TinyCheckpoint) -> None:
    """Approximate, but the same approximation whatever else runs."""
    requests = [
        request for period in (2, 4) for request in _with_period(tiny.requests(10, seed=period), period)
    ]
    together = generate(tiny.engine(PARTIAL), requests)
    for request in requests:
        alone = generate(tiny.engine(replace(PARTIAL, slots=1)), [request])
        assert alone[request.request_id] == together[request.request_id]


def test_exact_and_partial_requests_share_forwards(tiny: TinyCheckpoint) -> None:
    exact = tiny.requests(10, seed=5)
    partial = _with_period(tiny.requests(10, seed=6), 3)
    found = generate(tiny.engine(PARTIAL), [r for pair in zip(exact, partial, strict=True) for r in pair])
    for request in exact:
        assert found[request.request_id] == tiny.expected(request)


def test_a_replica_that_keeps_nothing_refuses_partial_steps(tiny: TinyCheckpoint) -> None:
    (request,) = _with_period(tiny.requests(1, seed=7), 2)
    with pytest.raises(InvalidParameter, match=r"rebuild_every.*engine\.partial"):
        tiny.engine().submit(request)
