"""Sliding-window layers: a second page table that holds only what can still be seen."""

from dataclasses import replace

import pytest

from easel.scheduler.messages import PhasePolicy, ReplicaShape
from easel.scheduler.phase import RowKind
from easel.scheduler.request import Request, SamplingParams
from easel.scheduler.window import longest_write, window_pages_per_request
from tests.fakes import FakeReplica, request, windowed_shape

GENEROUS = PhasePolicy(target_seconds=10.0, refresh_tokens=4096)


def _replica(**changes: int) -> FakeReplica:
    shape: ReplicaShape = replace(windowed_shape(pages=200), **changes)
    return FakeReplica(shape, policy=GENEROUS, min_steps=1, max_steps=2)


@pytest.mark.parametrize(
    ("window", "page_size", "block"), [(20, 8, 4), (16, 8, 4), (5, 8, 32), (1024, 64, 256)]
)
def test_a_request_needs_what_a_chunks_first_token_sees_and_the_chunk(
    window: int, page_size: int, block: int
) -> None:
    chunk, pages = longest_write(page_size, block), window_pages_per_request(window, page_size, block)
    worst = max(
        -(-(start + chunk) // page_size) - max(0, start - window + 1) // page_size
        for start in range(4 * (window + page_size))
    )
    assert worst <= pages <= worst + 1


def test_pages_out_of_sight_are_given_back_while_the_request_runs() -> None:
    replica = _replica()
    replica.submit(request("a", prompt=400, max_tokens=100))
    held: list[int] = []
    while replica.scheduler.has_work:
        plan = replica.step()
        assert plan is not None
        held += [len(row.window_pages) for row in plan.rows if row.kind is RowKind.REUSE]
    seen = -(-(20 - 1) // 8) + 1
    assert held
    assert max(held) <= seen + 1  # the page the next commit goes to
    assert len(replica.plans[-1].rows[-1].pages) > 50


def test_a_prefill_chunk_is_no_longer_than_a_block_in_whole_pages() -> None:
    replica = _replica()
    replica.submit(request("a", prompt=100))
    chunks = [row.length for plan in replica.drain() for row in plan.rows if row.kind is RowKind.PREFILL]
    assert max(chunks) == longest_write(8, 4) == 8
    assert sum(chunks) == 100


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
    replica = _replica(slots=1, window_pages=window_pages_per_request(20, 8, 4))
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
