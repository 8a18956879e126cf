"""Sliding-window layers: a second page table that holds only what can still be seen."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easel.scheduler.compose import ComposePolicy
from easel.scheduler.errors import BrokenBooks
from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import PhasePolicy, ReplicaShape
from easel.scheduler.phase import RowKind
from easel.scheduler.request import Request, SamplingParams
from easel.scheduler.window import longest_write, window_pages, window_share
from tests.fakes import FakeReplica, request, windowed_shape

GENEROUS = PhasePolicy(target_seconds=10.0, refresh_tokens=4096)
BLOCK = 16  # two pages of 8: a commit after 41 tokens needs two more than the share of 4


def _replica(**changes: int) -> FakeReplica:
    shape: ReplicaShape = replace(windowed_shape(pages=200), **changes)
    return FakeReplica(shape, policy=GENEROUS, min_steps=1, max_steps=2)


def _blocks_of_two_pages(slots: int, writes: int, **changes: int) -> ReplicaShape:
    held = window_pages(slots, 20, 8, BLOCK, writes)
    return replace(windowed_shape(slots, 400), block_length=BLOCK, window_pages=held, **changes)


def _in_step(shape: ReplicaShape) -> FakeReplica:
    """As many requests as slots, whose blocks finish in the same steps as long as nobody waits."""
    policy = replace(GENEROUS, opens_per_step=shape.slots)
    replica = FakeReplica(shape, policy=policy, min_steps=3, max_steps=3)
    for index in range(shape.slots):
        replica.submit(request(f"r{index}", prompt=41, max_tokens=2 * BLOCK))
    return replica


def _commits(replica: FakeReplica) -> list[list[str]]:
    plans = ([row.request_id for row in plan.rows if row.kind is RowKind.COMMIT] for plan in replica.drain())
    return [names for names in plans if names]


@pytest.mark.parametrize(
    ("window", "page_size", "block"),
    [(20, 8, 4), (16, 8, 4), (17, 8, 4), (18, 8, 24), (2, 1, 3), (5, 8, 32), (1024, 64, 256)],
)
def test_a_share_holds_what_a_token_sees_and_a_write_takes_no_more_pages_than_it_fills(
    window: int, page_size: int, block: int
) -> None:
    share, chunk = window_share(window, page_size), longest_write(page_size, block)

    def spanned(start: int, count: int) -> int:
        return -(-(start + count) // page_size) - max(0, start - window + 1) // page_size

    starts = range(4 * (window + page_size))
    assert max(spanned(start, 1) for start in starts) == share
    assert max(spanned(start, chunk) for start in starts) <= share + chunk // page_size


def test_a_replica_has_a_share_for_every_slot_and_a_spare_for_its_writes() -> None:
    assert window_pages(256, 1024, 64, 256, writes=40) == 256 * 17 + 40 * 4


def test_a_spare_that_no_row_fits_into_is_refused() -> None:
    shape = windowed_shape(slots=3)
    with pytest.raises(BrokenBooks, match="12 window pages for 3 slots, not 13"):
        LocalScheduler(replace(shape, window_pages=12))


def test_pages_out_of_sight_are_given_back_while_the_request_runs() -> None:
    replica = _replica()
    replica.submit(request("a", prompt=400, max_tokens=100))
    held: list[int] = []
    while replica.scheduler.has_work:
        plan = replica.step()
        assert plan is not None
        held += [len(row.window_pages) for row in plan.rows if row.kind is RowKind.REUSE]
    assert held
    assert max(held) <= window_share(20, 8)
    assert len(replica.plans[-1].rows[-1].pages) > 50


def test_a_prefill_chunk_is_no_longer_than_a_block_in_whole_pages() -> None:
    replica = _replica()
    replica.submit(request("a", prompt=100))
    chunks = [row.length for plan in replica.drain() for row in plan.rows if row.kind is RowKind.PREFILL]
    assert max(chunks) == longest_write(8, 4) == 8
    assert sum(chunks) == 100


def test_blocks_that_finish_together_are_committed_together_if_the_spare_allows() -> None:
    everyone = ["r0", "r1", "r2", "r3"]
    assert _commits(_in_step(_blocks_of_two_pages(slots=4, writes=4))) == [everyone]


@pytest.mark.parametrize(("writes", "limit"), [(2, 4), (4, 2)])
def test_blocks_that_one_forward_has_no_memory_for_wait_for_the_next(writes: int, limit: int) -> None:
    """Whether it is pages that lack or what a commit's tokens take."""
    replica = _in_step(_blocks_of_two_pages(slots=4, writes=writes, commit_limit=limit))
    assert _commits(replica) == [["r0", "r1"], ["r2", "r3"]]
    assert all(len(replica.output(name)) == 2 * BLOCK for name in replica.events)


def test_a_block_that_waits_keeps_no_running_canvas_waiting() -> None:
    replica = _in_step(_blocks_of_two_pages(slots=4, writes=4, commit_limit=1))
    plans = replica.drain()
    first = next(index for index, plan in enumerate(plans) if plan.rows[0].kind is RowKind.COMMIT)
    kinds = [[row.kind for row in plan.rows if not row.kind.writes_pages] for plan in plans[first:]]
    assert [len(rows) for rows in kinds] == [1, 2, 3, 3, 2, 1], "of three steps each"


def test_prefill_goes_on_page_by_page_while_others_have_the_spare() -> None:
    replica = FakeReplica(_blocks_of_two_pages(slots=4, writes=1), policy=GENEROUS)
    for index in range(4):
        replica.submit(request(f"r{index}", prompt=160, max_tokens=4))
    chunks = [[row.length for row in plan.rows if row.kind is RowKind.PREFILL] for plan in replica.drain()]
    assert all(len(rows) == 4 for rows in chunks[:10])
    assert chunks[5] == [16, 16, 8, 8], "the share has room for one page, the spare for two more"


def test_a_plan_that_is_not_carried_out_keeps_its_pages_for_the_next() -> None:
    replica = _in_step(_blocks_of_two_pages(slots=3, writes=3, commit_limit=1))
    while not replica.scheduler.digest("", 0).blocks:
        replica.step()
    first, again = (replica.scheduler.plan(replica.now) for _ in range(2))
    assert first is not None
    assert first == again
    replica.scheduler.check()
    assert [row.request_id for row in first.rows] == ["r0", "r0"]


def test_a_cancelled_request_gives_back_what_it_was_lent() -> None:
    replica = _in_step(_blocks_of_two_pages(slots=3, writes=3, commit_limit=1))
    while not replica.scheduler.digest("", 0).blocks:
        replica.step()
    replica.scheduler.plan(replica.now)
    replica.scheduler.cancel("r0")
    replica.scheduler.check()
    assert _commits(replica) == [["r1"], ["r2"]]


@settings(max_examples=60)
@given(st.data())
def test_every_request_ends_whatever_the_window_and_however_small_the_spare(data: st.DataObject) -> None:
    page, block = data.draw(st.sampled_from([1, 4, 8])), data.draw(st.sampled_from([1, 4, 8, 20]))
    window, slots = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 5))
    held = window_pages(slots, window, page, block, data.draw(st.integers(1, 2)))
    shape = replace(
        windowed_shape(slots, 2000, page, window),
        block_length=block,
        window_pages=held,
        commit_limit=data.draw(st.integers(1, slots)),
    )
    policy = PhasePolicy(refresh_tokens=data.draw(st.sampled_from([1, 30, 500])), opens_per_step=2)
    compose = data.draw(st.sampled_from(ComposePolicy))
    replica = FakeReplica(shape, compose, policy, max_steps=3)
    for index in range(data.draw(st.integers(1, 8))):
        prompt = data.draw(st.integers(1, 100))
        replica.submit(request(f"r{index}", prompt, data.draw(st.integers(1, 60))))
        if data.draw(st.booleans()):
            replica.step()
    replica.drain(limit=4000)
    assert all(events[-1].finish is not None for events in replica.events.values())


def test_a_prefix_is_reused_as_far_as_both_tables_have_it() -> None:
    """Only the window's last tokens before the end of a cached prefix need to be there."""
    replica = _replica()
    first = request("a", prompt=400, max_tokens=4)
    replica.submit(first)
    replica.drain()
    replica.submit(Request("b", (*first.prompt, 7, 8), SamplingParams(max_tokens=4)))
    replica.drain()
    assert replica.events["b"][0].cached_tokens == 400


def test_a_prefix_whose_window_was_evicted_is_computed_again() -> None:
    replica = _replica(slots=1, window_pages=window_pages(1, 20, 8, 4, writes=1))
    first = request("a", prompt=200, max_tokens=4)
    for each in (first, request("other", prompt=200, max_tokens=4)):
        replica.submit(each)
        replica.drain()
    replica.submit(replace(first, request_id="again"))
    replica.drain()
    (event,) = replica.events["again"]
    assert event.cached_tokens == 0
    assert replica.output("again") != ()


def test_canvases_follow_the_prompts_last_token() -> None:
    replica = _replica()
    replica.submit(request("a", prompt=13, max_tokens=6))
    rows = [row for plan in replica.drain() for row in plan.rows]
    assert {row.start for row in rows if row.kind is RowKind.OPEN} == {13, 17}
    assert [(row.start, row.end) for row in rows if row.kind is RowKind.COMMIT] == [(13, 17)]
    assert [len(event.tokens) for event in replica.events["a"]] == [4, 2]
