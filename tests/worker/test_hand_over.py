"""Requests that leave one engine at a block's end and go on at another: the same tokens."""

from dataclasses import replace
from random import Random

import pytest

from easel.bench.oracles.cases import random_tokens
from easel.scheduler.errors import Draining
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import CommitRule, DiffusionParams, FinishReason, Request, SamplingParams
from tests.worker.driving import assert_all_free, drain, generate
from tests.worker.tiny import VOCABULARY, Layout, TinyCheckpoint

BLOCKS = 4


def requests_of(checkpoint: TinyCheckpoint, count: int) -> list[Request]:
    """Drawn at some temperature, with prompts that do not end with a block."""
    diffusion = DiffusionParams(steps=3, commit_rule=CommitRule.STATIC_SCHEDULE)
    sampling = SamplingParams(max_tokens=BLOCKS * checkpoint.block_length, temperature=0.8, seed=3)
    lengths = [checkpoint.block_length + 1 + index for index in range(count)]
    return [
        Request(f"r{length}", random_tokens(Random(length), length, VOCABULARY), sampling, diffusion)
        for length in lengths
    ]


def resumed(request: Request, events: list[BlockEvent]) -> Request:
    """As the gateway would place it anew."""
    blocks = [event for event in events if event.request_id == request.request_id]
    return replace(request, committed=tuple(token for event in blocks for token in event.tokens))


def tokens_of(events: list[BlockEvent]) -> tuple[int, ...]:
    return tuple(token for event in events for token in event.tokens)


@pytest.mark.parametrize("steps", range(0, 13, 2))
def test_a_drained_engine_gives_all_back_and_another_one_ends_them_alike(
    endless: TinyCheckpoint, steps: int
) -> None:
    """Whether they wait for a slot, prefill, denoise, or have just finished a block."""
    requests = requests_of(endless, 3)
    whole = generate(endless.engine(Layout(slots=3)), requests)
    first, second = endless.engine(Layout(slots=2)), endless.engine(Layout(slots=3))
    events: list[BlockEvent] = []
    for request in requests:
        first.submit(request)
    for _ in range(steps):
        events += [event for event in first.step() if isinstance(event, BlockEvent)]
    first.drain()
    with pytest.raises(Draining):
        first.submit(replace(requests[0], request_id="late"))
    events += drain(first)
    assert_all_free(first)
    ended = {event.request_id: event.finish for event in events if event.finish is not None}
    assert ended.keys() == {request.request_id for request in requests}
    moved = [request for request in requests if ended[request.request_id] is FinishReason.HANDED_OVER]
    for request in moved:
        second.submit(resumed(request, events))
    rest = drain(second)
    for request in requests:
        mine = [event for event in events + rest if event.request_id == request.request_id]
        assert tokens_of(mine) == whole[request.request_id].tokens
        indices = [event.block_index for event in mine if event.block_index >= 0]
        assert indices == list(range(BLOCKS + 1))[: len(indices)]


def test_one_request_leaves_and_the_others_stay(endless: TinyCheckpoint) -> None:
    requests = requests_of(endless, 2)
    whole = generate(endless.engine(), requests)
    engine = endless.engine()
    for request in requests:
        engine.submit(request)
    engine.step()
    engine.hand_over(requests[0].request_id)
    events = drain(engine)
    leaving, staying = ([event for event in events if event.request_id == r.request_id] for r in requests)
    assert leaving[-1].finish is FinishReason.HANDED_OVER
    assert [event.block_index for event in leaving] == [0, -1]
    assert tokens_of(staying) == whole[requests[1].request_id].tokens
