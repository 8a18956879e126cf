"""What is planned for sequences whose prefix cannot be cached, for partial steps, and unfused commits."""

from dataclasses import replace

import pytest

from easel.scheduler.errors import InvalidParameter, RequestTooLong
from easel.scheduler.messages import PhasePolicy, Row
from easel.scheduler.phase import Phase, RowKind
from easel.scheduler.request import DiffusionParams, Request
from tests.fakes import FakeReplica, bidirectional_shape, request, shape

OPEN, REBUILD, REUSE, COMMIT = RowKind.OPEN, RowKind.REBUILD, RowKind.REUSE, RowKind.COMMIT


def _request(rebuild_every: int, prompt: int = 6, max_tokens: int = 6) -> Request:
    return replace(request("a", prompt, max_tokens), diffusion=DiffusionParams(rebuild_every=rebuild_every))


def _rows(replica: FakeReplica) -> list[Row]:
    return [row for plan in replica.drain() for row in plan.rows]


def test_an_exact_bidirectional_step_computes_the_whole_sequence_and_keeps_nothing() -> None:
    replica = FakeReplica(bidirectional_shape(), min_steps=3, max_steps=3)
    replica.submit(_request(0))
    rows = _rows(replica)
    assert [row.kind for row in rows] == [OPEN, REBUILD, REBUILD] * 2
    assert {(row.start, row.length, row.keeps) for row in rows} == {(0, 14, False)}
    assert [len(row.tokens) for row in rows] == [6] * 3 + [10] * 3
    assert {row.kind.phase for row in rows} == {Phase.REFRESH}


def test_between_rebuilds_only_the_block_is_computed_and_all_else_read_from_pages() -> None:
    replica = FakeReplica(bidirectional_shape(), min_steps=5, max_steps=5)
    replica.submit(_request(2, max_tokens=4))
    rows = _rows(replica)
    assert [row.kind for row in rows] == [OPEN, REUSE, REBUILD, REUSE, REBUILD]
    assert [(row.start, row.length) for row in rows] == [(0, 10), (6, 4), (0, 10), (6, 4), (0, 10)]
    assert {len(row.pages) for row in rows} == {2}
    assert all(row.keeps and row.span == 10 for row in rows)


def test_a_bidirectional_sequence_is_never_shared() -> None:
    replica = FakeReplica(bidirectional_shape(), min_steps=1, max_steps=1)
    first = _request(2, prompt=40)
    replica.submit(first)
    replica.drain()
    replica.submit(replace(first, request_id="again"))
    replica.drain()
    assert replica.events["again"][0].cached_tokens == 0
    assert replica.scheduler.digest("r", 0).pages_available == 64


@pytest.mark.parametrize("rebuild_every", [0, 4])
def test_a_bidirectional_sequence_must_fit_in_pages_so_that_a_forward_is_bounded(rebuild_every: int) -> None:
    replica = FakeReplica(bidirectional_shape(pages=5))
    replica.submit(_request(rebuild_every, prompt=30))
    with pytest.raises(RequestTooLong):
        replica.submit(replace(_request(rebuild_every, prompt=34), request_id="b"))


def test_a_partial_step_computes_what_can_still_change() -> None:
    replica = FakeReplica(replace(shape(), partial=True), min_steps=6, max_steps=6)
    replica.submit(_request(3, prompt=8, max_tokens=4))
    rows = [row for row in _rows(replica) if not row.kind.writes_pages]
    assert [row.kind for row in rows] == [OPEN, REUSE, REUSE, REBUILD, REUSE, REUSE]
    assert [row.length for row in rows] == [4, 2, 3, 4, 1, 2]  # as the fake runner reports them live


def test_partial_steps_are_refused_where_nothing_is_kept_for_them() -> None:
    with pytest.raises(InvalidParameter, match="rebuild_every"):
        FakeReplica(shape()).submit(_request(4))


def test_commits_can_be_kept_apart_from_openings() -> None:
    fused, apart = (
        FakeReplica(shape(), policy=PhasePolicy(fuse_commits=fuse), min_steps=2, max_steps=2)
        for fuse in (True, False)
    )
    for replica in (fused, apart):
        replica.submit(request("a", prompt=8, max_tokens=8))
        replica.drain()
    assert [[row.kind for row in plan.rows] for plan in fused.plans[2:]] == [[COMMIT, OPEN], [REUSE]]
    assert [[row.kind for row in plan.rows] for plan in apart.plans[2:]] == [[COMMIT], [OPEN], [REUSE]]
    assert fused.output("a") == apart.output("a")
