"""The step loop: what it emits and when, and that nothing is left behind whatever happens."""

from pathlib import Path
from random import Random

import pytest

from easel.bench.oracles.cases import random_tokens
from easel.scheduler.errors import InvalidParameter, RequestTooLong, UnknownRequest
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, PhasePolicy
from easel.scheduler.request import CommitRule, DiffusionParams, FinishReason, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.loading import load_engine
from tests.checkpoints import MASK_ID, tiny_config, write_tiny_checkpoint
from tests.worker.driving import assert_all_free, drain, generate, generations
from tests.worker.tiny import VOCABULARY, Layout, TinyCheckpoint

SLOW = DiffusionParams(steps=32, commit_rule=CommitRule.STATIC_SCHEDULE)  # one position a step


@pytest.mark.parametrize("steps", range(12))
def test_a_cancelled_request_frees_its_slot_and_pages_before_the_next_step(
    endless: TinyCheckpoint, steps: int
) -> None:
    """Whether it waits, prefills its five blocks, denoises, or has just finished a block."""
    engine = endless.engine(Layout(slots=1, refresh_blocks=1))
    prompt = random_tokens(Random(1), 5 * endless.block_length, VOCABULARY)
    diffusion = DiffusionParams(steps=3, commit_rule=CommitRule.STATIC_SCHEDULE)
    engine.submit(Request("r", prompt, SamplingParams(max_tokens=100, seed=1), diffusion))
    for _ in range(steps):
        engine.step()
    engine.cancel("r")
    assert_all_free(engine)
    (event,) = engine.step()
    assert isinstance(event, BlockEvent)
    assert (event.request_id, event.tokens, event.finish) == ("r", (), FinishReason.CANCELLED)
    assert not engine.has_work
    assert engine.step() == []


def test_a_cancelled_requests_slot_serves_the_next_one_at_once(endless: TinyCheckpoint) -> None:
    engine = endless.engine(Layout(slots=1))
    first, second = _slow("first"), _slow("second")
    engine.submit(first)
    engine.submit(second)
    engine.step()
    assert engine.digest("", 0).waiting == 1
    engine.cancel("first")
    engine.step()
    assert engine.digest("", 0).waiting == 0
    assert generations(drain(engine))["second"] == endless.expected(second)


def test_a_request_that_is_not_here_cannot_be_cancelled(tiny: TinyCheckpoint) -> None:
    engine = tiny.engine()
    generate(engine, [_slow("done")])
    for name in ("done", "never"):
        with pytest.raises(UnknownRequest, match=name):
            engine.cancel(name)
    assert not engine.has_work


def test_an_id_is_free_again_once_its_request_has_ended(endless: TinyCheckpoint) -> None:
    engine = endless.engine()
    engine.submit(_slow("r"))
    with pytest.raises(InvalidParameter, match="request_id is 'r'"):
        engine.submit(_slow("r"))
    first = generations(drain(engine))
    assert generate(engine, [_slow("r")]) == first


def test_a_block_costs_its_steps_and_no_forward_more(endless: TinyCheckpoint) -> None:
    """Prefill shares the first opening's forward, and each commit that of the next opening."""
    engine = endless.engine()
    request = _slow("r", max_tokens=3 * endless.block_length)
    steps = endless.expected(request).steps
    assert len(steps) == 4
    generate(engine, [request])
    assert engine.digest("", 0).steps == sum(steps)


def test_nothing_is_computed_after_end_of_sequence(tiny: TinyCheckpoint) -> None:
    engine = tiny.engine()
    stopped = [
        request
        for request in tiny.requests(20, seed=3)
        if tiny.expected(request).finish is FinishReason.STOP
        and len(tiny.expected(request).tokens) + tiny.block_length < request.sampling.max_tokens
    ]
    assert stopped
    for request in stopped:
        before = engine.digest("", 0)
        generation = generate(engine, [request])[request.request_id]
        after = engine.digest("", 0)
        assert after.blocks - before.blocks == len(generation.blocks)
        prefills = -(-len(request.prompt) // tiny.block_length)
        assert after.steps - before.steps <= sum(generation.steps) + prefills


def test_snapshots_show_every_step_before_the_block_they_lead_to(endless: TinyCheckpoint) -> None:
    engine = endless.engine()
    request = Request("r", (7, 8, 9), SamplingParams(max_tokens=13), SLOW, snapshots=True)
    engine.submit(request)
    engine.submit(_slow("unwatched"))
    seen: list[CanvasSnapshot] = []
    blocks = 0
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, CanvasSnapshot):
                assert event.request_id == "r"
                seen.append(event)
            elif event.request_id == "r":
                assert [snapshot.step for snapshot in seen] == list(range(1, event.steps + 1))
                assert {snapshot.block_index for snapshot in seen} == {event.block_index}
                last = seen[-1]
                shown = [token for token, decided in zip(last.tokens, last.decided, strict=True) if decided]
                assert tuple(shown[last.first : last.first + len(event.tokens)]) == event.tokens
                seen.clear()
                blocks += 1
    assert blocks == 2
    assert seen == []


def test_events_tell_the_time_of_the_injected_clock(tiny: TinyCheckpoint) -> None:
    now = [100.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    engine = load_engine(tiny.path, EngineConfig(slots=1, dtype="float32"), clock=clock)
    request = _slow("r", max_tokens=tiny.block_length)
    engine.submit(request)
    started = now[0]
    events = drain(engine)
    assert sum(event.seconds for event in events) <= now[0] - started
    assert all(event.seconds >= 0.5 * event.steps for event in events)
    assert {event.queue_seconds for event in events} == {0.5}, "one reading of the clock after submission"


def test_a_policy_that_is_set_limits_the_next_steps_prefill(tiny: TinyCheckpoint) -> None:
    engine = tiny.engine()
    block = tiny.block_length
    engine.set_policy(PhasePolicy(epoch=1, refresh_tokens=2 * block, target_seconds=1e3, time_to_live=1e9))
    engine.submit(Request("r", random_tokens(Random(2), 8 * block, VOCABULARY), SamplingParams(max_tokens=1)))
    done = [engine.digest("", 0).refresh_tokens]
    for _ in range(4):
        engine.step()
        done.append(engine.digest("", 0).refresh_tokens)
    assert done == [0, 2 * block, 4 * block, 6 * block, 8 * block]


def test_the_longest_request_fits_and_one_token_more_is_refused(tmp_path: Path) -> None:
    """Positions that do not make a whole block are not used: the last canvas would reach beyond them."""
    write_tiny_checkpoint(tmp_path, tiny_config(max_positions=45), block_length=8)
    engine = load_engine(tmp_path, EngineConfig(slots=1, pages=8, dtype="float32"))
    prompt = random_tokens(Random(3), 30, 105)
    found = generate(engine, [Request("r", prompt, SamplingParams(max_tokens=10))])
    assert found["r"].finish is not None
    with pytest.raises(RequestTooLong, match="make 41, 1 more than the limit of 40"):
        engine.submit(Request("r", prompt, SamplingParams(max_tokens=11)))


def test_bfloat16_runs_every_kind_of_request_to_its_end(tiny: TinyCheckpoint) -> None:
    engine = tiny.engine(Layout(pages=512), dtype="bfloat16")
    requests = tiny.requests(20, seed=9)
    found = generate(engine, requests)
    for request in requests:
        generation = found[request.request_id]
        assert len(generation.tokens) <= request.sampling.max_tokens
        assert MASK_ID not in generation.tokens
        if generation.finish is FinishReason.LENGTH:
            assert len(generation.tokens) == request.sampling.max_tokens


def test_bfloat16_generates_the_same_again(tiny: TinyCheckpoint) -> None:
    """Alone, on a new engine: the same shapes in the same order, so the same sums."""

    def alone() -> list[object]:
        engine = tiny.engine(Layout(slots=1), dtype="bfloat16")
        return [generate(engine, [request]) for request in tiny.requests(6, seed=10)]

    assert alone() == alone()


def _slow(name: str, max_tokens: int = 16) -> Request:
    return Request(name, (11, 12, 13, 14, 15, 16, 17, 18, 19), SamplingParams(max_tokens=max_tokens), SLOW)
