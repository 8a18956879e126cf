"""Handing over and draining: a request leaves between blocks, and goes on elsewhere with the same ones."""

from dataclasses import replace

import pytest

from easel.scheduler.compose import ComposePolicy
from easel.scheduler.errors import Draining, UnknownRequest
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import FinishReason, Request
from tests.fakes import FakeReplica, request, shape


def _denoising(request: Request, steps: int = 3, **shapes: int) -> FakeReplica:
    """A replica in the midst of the request's first block."""
    replica = FakeReplica(shape(**shapes), min_steps=steps, max_steps=steps)
    replica.submit(request)
    replica.step()
    return replica


def _last(replica: FakeReplica, name: str) -> BlockEvent:
    return replica.events[name][-1]


def test_a_waiting_request_leaves_at_once() -> None:
    replica = _denoising(request("running"), slots=1)
    replica.submit(request("waiting"))
    replica.hand_over("waiting")
    assert [event.finish for event in replica.events["waiting"]] == [FinishReason.HANDED_OVER]
    replica.drain()
    assert _last(replica, "running").finish is FinishReason.LENGTH


def test_a_prefilling_request_leaves_at_once_even_during_the_step() -> None:
    replica = FakeReplica(shape(pages=400))
    replica.submit(request("a", prompt=2000))
    replica.step()
    plan = replica.scheduler.plan(replica.now)
    assert plan is not None
    replica.hand_over("a")
    replica.finish(plan)
    assert _last(replica, "a").finish is FinishReason.HANDED_OVER
    assert replica.scheduler.idle


def test_a_running_request_leaves_when_its_block_is_finished() -> None:
    replica = _denoising(request("a", prompt=4))
    replica.hand_over("a")
    replica.hand_over("a")
    assert replica.events["a"] == []
    replica.drain()
    block, leaving = replica.events["a"]
    assert (block.block_index, len(block.tokens), block.finish) == (0, 4, None)
    assert (leaving.block_index, leaving.tokens) == (-1, ())
    assert leaving.finish is FinishReason.HANDED_OVER
    assert replica.scheduler.idle


def test_a_request_whose_block_was_its_last_just_ends() -> None:
    replica = _denoising(request("a", prompt=4, max_tokens=4))
    replica.hand_over("a")
    replica.drain()
    assert [event.finish for event in replica.events["a"]] == [FinishReason.LENGTH]


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_what_is_handed_over_goes_on_elsewhere_with_the_same_blocks(blocks: int) -> None:
    whole, one, other = (FakeReplica(shape()) for _ in range(3))
    task = request("a", prompt=7, max_tokens=30)
    whole.submit(task)
    whole.drain()
    one.submit(task)
    while len(one.events["a"]) < blocks:
        one.step()
    one.hand_over("a")
    one.drain()
    other.submit(replace(task, committed=one.output("a")))
    other.drain()
    events = one.events["a"][:-1] + other.events["a"]
    assert [(e.block_index, e.tokens) for e in events] == [
        (e.block_index, e.tokens) for e in whole.events["a"]
    ]


def test_the_prefix_of_what_left_stays_cached() -> None:
    replica = _denoising(request("a", prompt=32, max_tokens=20))
    replica.hand_over("a")
    replica.drain()
    replica.submit(replace(request("a", prompt=32, max_tokens=20), committed=replica.output("a")))
    replica.drain()
    assert _last(replica, "a").cached_tokens == 32


@pytest.mark.parametrize("policy", ComposePolicy)
def test_draining_gives_everybody_back_and_takes_nobody(policy: ComposePolicy) -> None:
    replica = FakeReplica(shape(slots=2), policy, min_steps=3, max_steps=3)
    for name in "abcd":
        replica.submit(request(name, prompt=4))
    replica.step()
    for event in replica.scheduler.drain():
        replica.events[event.request_id].append(event)
    assert replica.scheduler.digest("r", 0).draining
    with pytest.raises(Draining, match="this replica"):
        replica.scheduler.submit(request("late"), replica.now)
    replica.drain()
    assert [len(replica.events[name]) for name in "cd"] == [1, 1]
    assert all(_last(replica, name).finish is FinishReason.HANDED_OVER for name in "abcd")
    assert replica.scheduler.digest("r", 1).pages_available == 64


def test_handing_over_what_is_not_here_says_so() -> None:
    with pytest.raises(UnknownRequest):
        FakeReplica(shape()).scheduler.hand_over("a")
