"""Running an engine to the end of some requests, and collecting what it says."""

from collections.abc import Iterable

from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import Request
from easel.worker.engine import Engine
from tests.worker.reference import Generation

STEP_LIMIT = 5_000


def generate(engine: Engine, requests: Iterable[Request]) -> dict[str, Generation]:
    """Submit all requests, step until all have ended, and check that nothing is left behind."""
    for request in requests:
        engine.submit(request)
    return generations(drain(engine))


def drain(engine: Engine) -> list[BlockEvent]:
    """Step until idle; returns the block events."""
    events: list[BlockEvent | CanvasSnapshot] = []
    steps = 0
    while engine.has_work:
        events += engine.step()
        steps += 1
        assert steps < STEP_LIMIT, "the work does not come to an end"
    engine.check()
    return [event for event in events if isinstance(event, BlockEvent)]


def generations(events: Iterable[BlockEvent]) -> dict[str, Generation]:
    """What each request came to; a request's blocks must be in order and end with its finish."""
    found: dict[str, Generation] = {}
    for event in events:
        old = found.get(event.request_id, Generation((), (), None))
        assert old.finish is None, "an event after the last one"
        blocks, steps = (*old.blocks, event.tokens), (*old.steps, event.steps)
        found[event.request_id] = Generation(blocks, steps, event.finish)
    assert all(generation.finish is not None for generation in found.values())
    return found


def assert_all_free(engine: Engine) -> None:
    """The books balance, and nobody holds a slot or a page."""
    engine.check()
    digest = engine.digest("", 0)
    assert (digest.slots_used, digest.pages_available, digest.active) == (0, engine.shape.pages, ())
