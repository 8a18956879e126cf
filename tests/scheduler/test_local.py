"""LocalScheduler: the life of requests on one replica."""

from dataclasses import replace

import pytest

from easel.scheduler.errors import BrokenBooks, InvalidParameter, RequestTooLong, UnknownRequest
from easel.scheduler.messages import CanvasResult, PhasePolicy, StepResult
from easel.scheduler.phase import RowKind
from easel.scheduler.request import FinishReason, Request
from tests.fakes import EOS, FakeReplica, request, shape


def _done(replica: FakeReplica, block: tuple[int, ...]) -> None:
    """One step in which the only canvas comes out as `block`."""
    plan = replica.scheduler.plan(replica.now)
    assert plan is not None
    (row,) = (row for row in plan.rows if not row.kind.writes_pages)
    canvas = CanvasResult(row.request_id, row.slot, True, 1, 0, 0.5, block)
    for event in replica.scheduler.apply(plan, StepResult((canvas,), 0.01), replica.now):
        replica.events[event.request_id].append(event)


def _single(prompt: int, max_tokens: int) -> FakeReplica:
    replica = FakeReplica(shape(), min_steps=1, max_steps=1)
    replica.submit(request("a", prompt, max_tokens))
    return replica


def test_there_is_one_event_per_block_and_the_last_one_says_why_it_is_the_last() -> None:
    replica = FakeReplica(shape())
    replica.submit(request("a", prompt=6, max_tokens=11))
    replica.drain()
    events = replica.events["a"]
    assert [event.block_index for event in events] == [0, 1, 2, 3]
    assert [len(event.tokens) for event in events] == [2, 4, 4, 1]
    assert [event.finish for event in events] == [None, None, None, FinishReason.LENGTH]
    assert replica.scheduler.idle


def test_nothing_is_computed_or_written_after_the_last_block() -> None:
    replica = FakeReplica(shape())
    replica.submit(request("a", prompt=4, max_tokens=8))
    plans = replica.drain()
    commits = [row.end for plan in plans for row in plan.rows if row.kind is RowKind.COMMIT]
    assert commits == [8]


def test_output_ends_before_the_first_end_of_sequence() -> None:
    replica = _single(prompt=4, max_tokens=20)
    _done(replica, (50, 51, EOS, EOS))
    (event,) = replica.events["a"]
    assert (event.tokens, event.finish) == ((50, 51), FinishReason.STOP)
    assert replica.scheduler.idle


def test_an_end_of_sequence_as_the_last_token_allowed_is_a_stop() -> None:
    replica = _single(prompt=4, max_tokens=3)
    _done(replica, (50, 51, EOS, 99))
    assert replica.events["a"][0].finish is FinishReason.STOP


def test_an_end_of_sequence_just_beyond_max_tokens_is_not_seen() -> None:
    replica = _single(prompt=4, max_tokens=2)
    _done(replica, (50, 51, EOS, EOS))
    (event,) = replica.events["a"]
    assert (event.tokens, event.finish) == ((50, 51), FinishReason.LENGTH)


def test_an_end_of_sequence_in_the_prompt_does_not_end_the_output() -> None:
    replica = FakeReplica(shape())
    replica.submit(request("a", prompt=(20, 21, 22, 23, 24, EOS), max_tokens=6))
    _done(replica, (24, EOS, 50, 51))
    (event,) = replica.events["a"]
    assert (event.tokens, event.finish) == ((50, 51), None)


def test_a_block_that_is_too_short_is_refused() -> None:
    replica = _single(prompt=4, max_tokens=8)
    with pytest.raises(BrokenBooks, match="3 tokens for a block"):
        _done(replica, (50, 51, 52))


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("prompt", [4, 6])
def test_a_resumed_request_goes_on_with_the_same_blocks(blocks: int, prompt: int) -> None:
    whole = FakeReplica(shape())
    whole.submit(request("a", prompt, max_tokens=22))
    whole.drain()
    before = tuple(token for event in whole.events["a"][:blocks] for token in event.tokens)
    resumed = FakeReplica(shape())
    resumed.submit(replace(request("a", prompt, max_tokens=22), committed=before))
    resumed.drain()
    rest = whole.events["a"][blocks:]
    assert [(e.block_index, e.tokens, e.finish) for e in resumed.events["a"]] == [
        (e.block_index, e.tokens, e.finish) for e in rest
    ]


@pytest.mark.parametrize("committed", [(9, 9, 9), (9,) * 12, (9,) * 16])
def test_a_request_that_cannot_be_resumed_from_there_is_refused(committed: tuple[int, ...]) -> None:
    replica = FakeReplica(shape())
    with pytest.raises(InvalidParameter, match="committed"):
        replica.scheduler.submit(replace(request("a", 4, max_tokens=12), committed=committed), 0.0)


def test_a_prefix_that_was_seen_before_is_not_computed_again() -> None:
    replica = FakeReplica(shape())
    first = request("a", prompt=33, max_tokens=8)
    replica.submit(first)
    replica.drain()
    replica.submit(Request("b", first.prompt, first.sampling))
    plans = replica.drain()
    assert replica.events["b"][0].cached_tokens == 32
    assert [row.kind for row in plans[0].rows] == [RowKind.OPEN]


def test_the_next_turn_of_a_chat_finds_the_answer_of_the_last_in_the_cache() -> None:
    replica = FakeReplica(shape())
    first = request("a", prompt=12, max_tokens=20)
    replica.submit(first)
    replica.drain()
    replica.submit(request("b", prompt=(*first.prompt, *replica.output("a"), 77, 78, 79, 80)))
    replica.drain()
    # 12 + 20 tokens, the last block of which was never committed: three full pages of 8.
    assert replica.events["b"][0].cached_tokens == 24


def test_a_request_benefits_from_one_that_got_its_slot_earlier() -> None:
    replica = FakeReplica(shape(slots=1))
    first = request("a", prompt=32, max_tokens=4)
    replica.submit(first)
    replica.submit(Request("b", first.prompt, first.sampling))
    replica.drain()
    assert replica.events["b"][0].cached_tokens == 32


def test_tenants_do_not_share_the_cache() -> None:
    replica = FakeReplica(shape())
    first = request("a", prompt=32, tenant="red")
    replica.submit(first)
    replica.drain()
    for name, tenant, cached in (("b", "blue", 0), ("c", "red", 32)):
        replica.submit(Request(name, first.prompt, first.sampling, tenant=tenant))
        replica.drain()
        assert replica.events[name][0].cached_tokens == cached


def test_a_request_that_can_never_fit_is_refused_at_once() -> None:
    replica = FakeReplica(shape(pages=4))
    with pytest.raises(RequestTooLong) as too_long:
        replica.submit(request("a", prompt=30, max_tokens=7))
    assert (too_long.value.tokens, too_long.value.limit) == (37, 36)
    replica.submit(request("a", prompt=30, max_tokens=6))
    replica.drain()
    with pytest.raises(RequestTooLong):
        FakeReplica(shape(pages=5000)).submit(request("b", prompt=4000, max_tokens=97))


def test_an_id_in_use_is_refused_and_free_again_afterwards() -> None:
    replica = FakeReplica(shape())
    replica.submit(request("a"))
    with pytest.raises(InvalidParameter, match="request_id"):
        replica.submit(request("a"))
    replica.drain()
    replica.submit(request("a"))
    replica.drain()


def test_cancelling_frees_slot_and_pages_at_once() -> None:
    replica = FakeReplica(shape(slots=1, pages=8))
    replica.submit(request("a", prompt=30, max_tokens=20))
    replica.submit(request("b", prompt=30, max_tokens=20))
    replica.step()
    replica.scheduler.cancel("a")
    replica.scheduler.check()
    replica.step()
    assert {row.request_id for row in replica.plans[-1].rows} == {"b"}
    replica.scheduler.cancel("b")
    assert replica.scheduler.idle
    assert replica.scheduler.digest("r", 1).pages_available == 8


def test_cancelling_an_unknown_request_says_so() -> None:
    with pytest.raises(UnknownRequest):
        FakeReplica(shape()).scheduler.cancel("a")


def test_a_request_cancelled_during_the_step_is_passed_over() -> None:
    replica = FakeReplica(shape(), min_steps=1, max_steps=1)
    for name in ("a", "b", "c"):
        replica.submit(request(name, prompt=16, max_tokens=8))
    plan = replica.scheduler.plan(0.0)
    assert plan is not None
    replica.scheduler.cancel("b")
    replica.finish(plan)
    assert [len(replica.events[name]) for name in ("a", "b", "c")] == [1, 0, 1]
    replica.drain()


def test_an_id_submitted_anew_during_the_step_does_not_get_the_old_ones_block() -> None:
    replica = FakeReplica(shape(), min_steps=1, max_steps=1)
    replica.submit(request("a", prompt=16, max_tokens=8))
    plan = replica.scheduler.plan(0.0)
    assert plan is not None
    replica.scheduler.cancel("a")
    replica.submit(request("a", prompt=16, max_tokens=8))
    replica.finish(plan)
    assert replica.events["a"] == []
    replica.drain()
    assert [event.block_index for event in replica.events["a"]] == [0, 1]


def test_a_plan_that_is_never_run_loses_nothing() -> None:
    replica = FakeReplica(shape())
    for i in range(6):
        replica.submit(request(f"r{i}", prompt=20))
    while replica.scheduler.has_work:
        forgotten, plan = replica.scheduler.plan(replica.now), replica.scheduler.plan(replica.now)
        assert forgotten is not None
        assert plan is not None
        assert set(forgotten.rows) <= set(plan.rows)
        replica.finish(plan)
    assert all(replica.events[f"r{i}"][-1].finish for i in range(6))


def test_the_page_table_is_the_same_object_until_it_changes() -> None:
    replica = FakeReplica(shape(), min_steps=3, max_steps=3)
    replica.submit(request("a", prompt=16, max_tokens=4))
    plans = replica.drain()
    tables = [row.pages for plan in plans for row in plan.rows]
    assert all(table is tables[0] for table in tables)


def test_times_of_a_request_are_reported_with_its_blocks() -> None:
    replica = FakeReplica(shape(slots=1), min_steps=2, max_steps=2)
    replica.submit(request("a", prompt=4, max_tokens=4))
    replica.submit(request("b", prompt=16, max_tokens=4))
    replica.drain()
    (first,), (second,) = replica.events["a"], replica.events["b"]
    assert first.queue_seconds == 0.0
    assert second.queue_seconds == pytest.approx(first.seconds)
    assert 0.0 < second.prefill_seconds < second.seconds
    assert (second.steps, second.mean_entropy) == (2, 1.0)


def test_an_expired_policy_gives_way_to_the_default() -> None:
    default, told = PhasePolicy(refresh_tokens=8), PhasePolicy(epoch=3, time_to_live=2.0, refresh_tokens=64)
    replica = FakeReplica(shape(pages=200), policy=default)
    replica.submit(request("a", prompt=800))
    replica.scheduler.set_policy(told, now=0.0)
    for now, tokens in ((0.0, 64), (2.0, 64), (2.1, 8)):
        plan = replica.scheduler.plan(now)
        assert plan is not None
        assert plan.tokens == tokens


def test_a_policy_older_than_the_current_is_ignored_until_that_expires() -> None:
    scheduler = FakeReplica(shape()).scheduler
    scheduler.set_policy(PhasePolicy(epoch=5, time_to_live=1.0), now=0.0)
    scheduler.set_policy(PhasePolicy(epoch=4), now=0.5)
    assert scheduler.digest("r", 1).policy_epoch == 5
    scheduler.set_policy(PhasePolicy(epoch=4), now=1.5)
    assert scheduler.digest("r", 2).policy_epoch == 4


def test_the_digest_says_what_the_replica_holds_and_has_done() -> None:
    replica = FakeReplica(
        shape(slots=2, pages=64), policy=PhasePolicy(refresh_tokens=16), min_steps=2, max_steps=2
    )
    for name in ("a", "b", "c"):
        replica.submit(request(name, prompt=16, max_tokens=4))
    replica.step()
    digest = replica.scheduler.digest("r", 7)
    assert (digest.replica_id, digest.sequence, digest.active) == ("r", 7, ("a", "b", "c"))
    assert (digest.slots_used, digest.waiting, digest.waiting_prefill_tokens) == (1, 2, 32)
    assert digest.pages_available == 64 - 2
    replica.drain()
    digest = replica.scheduler.digest("r", 8)
    assert (digest.slots_used, digest.waiting, digest.active) == (0, 0, ())
    assert (digest.blocks, digest.committed_tokens, digest.steps_per_block) == (3, 12, 2.0)
    assert digest.refresh_tokens == sum(plan.tokens for plan in replica.plans) - digest.reuse_tokens
    assert digest.reuse_tokens == 3 * 4


def test_without_work_there_is_no_plan() -> None:
    scheduler = FakeReplica(shape()).scheduler
    assert scheduler.plan(0.0) is None
    assert not scheduler.has_work


def test_a_policy_cannot_allow_more_refresh_than_memory_was_set_aside_for() -> None:
    replica = FakeReplica(replace(shape(), refresh_limit=8))
    replica.scheduler.set_policy(PhasePolicy(epoch=1, refresh_tokens=4096, target_seconds=1e3), 0.0)
    replica.submit(request("a", prompt=64))
    assert max(plan.tokens for plan in replica.drain()) <= 8
