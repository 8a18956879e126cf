"""Balanced composition: running canvases first, newcomers to target, everybody in the end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from easel.scheduler.books import Books
from easel.scheduler.compose import CANDIDATES, compose
from easel.scheduler.cost import CostModel
from easel.scheduler.draft import Draft
from easel.scheduler.life import begin
from easel.scheduler.messages import BatchPlan, PhasePolicy, RefreshOrder
from easel.scheduler.phase import Phase, RowKind
from easel.scheduler.queue import RefreshQueue
from tests.fakes import FakeReplica, request, shape

TIGHT = PhasePolicy(target_seconds=0.0)  # no step is ever cheap enough for a newcomer


def _ids(plan: BatchPlan, *kinds: RowKind) -> list[str]:
    return [row.request_id for row in plan.rows if row.kind in kinds]


def _canvases(plan: BatchPlan) -> set[str]:
    return set(_ids(plan, RowKind.OPEN, RowKind.REUSE))


def _running(replica: FakeReplica, count: int, max_tokens: int = 400, prompt: int = 4) -> list[str]:
    """Submits short requests and steps until all have a canvas."""
    names = [f"running{i}" for i in range(count)]
    for name in names:
        replica.submit(request(name, prompt, max_tokens))
    while _canvases(_step(replica)) != set(names):
        assert len(replica.plans) < 100
    return names


def _step(replica: FakeReplica) -> BatchPlan:
    plan = replica.step()
    assert plan is not None
    return plan


def test_a_long_prompt_does_not_delay_running_canvases() -> None:
    replica = FakeReplica(shape(slots=9, pages=2000), policy=PhasePolicy(target_seconds=0.002))
    running = _running(replica, 8)
    replica.submit(request("long", prompt=3000))
    plans = [_step(replica) for _ in range(20)]
    assert all(set(running) <= _canvases(plan) for plan in plans)
    assert all(plan.predicted_seconds <= 0.002 for plan in plans)
    assert all("long" in _ids(plan, RowKind.PREFILL) for plan in plans)


def test_a_long_prompt_is_written_in_chunks_that_follow_each_other() -> None:
    replica = FakeReplica(shape(pages=2000), policy=PhasePolicy(refresh_tokens=64))
    replica.submit(request("long", prompt=1001, max_tokens=4))
    plans = replica.drain()
    chunks = [row for plan in plans for row in plan.rows if row.kind is RowKind.PREFILL]
    assert max(row.length for row in chunks) == 64
    assert [row.start for row in chunks] == [0, *(row.end for row in chunks[:-1])]
    assert chunks[-1].end == 1000
    assert all(plan.tokens_of(Phase.REFRESH) <= 64 + 4 for plan in plans)


def test_the_last_chunk_shares_its_forward_with_the_opening() -> None:
    replica = FakeReplica(shape())
    replica.submit(request("a", prompt=10, max_tokens=4))
    plan = _step(replica)
    assert [row.kind for row in plan.rows] == [RowKind.PREFILL, RowKind.OPEN]
    assert plan.rows[1].start == plan.rows[0].end == 8
    canvas = plan.rows[1].canvas
    assert canvas is not None
    assert canvas.known == request("a", prompt=10).prompt[8:]
    assert (canvas.block_index, canvas.limit) == (0, 4)


def test_a_commit_shares_its_forward_with_the_next_opening() -> None:
    replica = FakeReplica(shape(), min_steps=2, max_steps=2)
    replica.submit(request("a", prompt=4, max_tokens=8))
    plans = replica.drain()
    kinds = [[row.kind for row in plan.rows] for plan in plans]
    assert kinds == [
        [RowKind.PREFILL, RowKind.OPEN],
        [RowKind.REUSE],
        [RowKind.COMMIT, RowKind.OPEN],
        [RowKind.REUSE],
    ]
    assert plans[2].rows[0].tokens == replica.output("a")[:4]


def test_short_requests_overtake_a_long_prompt() -> None:
    replica = FakeReplica(shape(slots=4, pages=2000), policy=PhasePolicy(refresh_tokens=32))
    replica.submit(request("long", prompt=3000))
    _step(replica)
    replica.submit(request("short", prompt=8, max_tokens=4))
    for _ in range(6):
        _step(replica)
    assert replica.events["short"]
    assert not replica.events["long"]


def test_with_no_time_to_spare_a_newcomer_still_gets_one_block_a_step() -> None:
    replica = FakeReplica(shape(slots=3, pages=2000), policy=TIGHT)
    _running(replica, 2)
    replica.submit(request("new", prompt=40))
    plans = [_step(replica) for _ in range(11)]
    assert all(row.length == 4 for plan in plans for row in plan.rows if row.kind is RowKind.PREFILL)
    assert [_ids(plan, RowKind.PREFILL) for plan in plans[:10]] == [["new"]] * 10
    assert "new" in _ids(plans[10], RowKind.OPEN)


def test_a_quota_used_up_by_running_requests_still_lets_a_newcomer_go_on() -> None:
    replica = FakeReplica(
        shape(slots=4, pages=400), policy=PhasePolicy(refresh_tokens=4), min_steps=1, max_steps=1
    )
    _running(replica, 3)
    replica.submit(request("new", prompt=40))
    plans = [_step(replica) for _ in range(11)]
    assert [_ids(plan, RowKind.PREFILL) for plan in plans[:10]] == [["new"]] * 10
    assert "new" in _ids(plans[10], RowKind.OPEN)


def test_openings_of_newcomers_are_spread_over_steps() -> None:
    replica = FakeReplica(
        shape(slots=8, pages=200), policy=PhasePolicy(opens_per_step=2), min_steps=9, max_steps=9
    )
    for i in range(8):
        replica.submit(request(f"r{i}", prompt=4))
    assert [len(_ids(_step(replica), RowKind.OPEN)) for _ in range(4)] == [2, 2, 2, 2]


def test_canvases_that_go_on_are_not_counted_against_newcomers_openings() -> None:
    replica = FakeReplica(
        shape(slots=8, pages=400), policy=PhasePolicy(opens_per_step=1), min_steps=1, max_steps=1
    )
    running = _running(replica, 7)
    assert set(running) <= set(_ids(_step(replica), RowKind.OPEN))


def test_a_request_too_big_for_now_is_skipped_and_gets_its_turn() -> None:
    replica = FakeReplica(shape(slots=4, pages=24), min_steps=3, max_steps=3)
    replica.submit(request("holder", prompt=80, max_tokens=8))
    _step(replica)
    replica.submit(request("big", prompt=160, max_tokens=8))
    for i in range(600):
        replica.submit(request(f"small{i}", prompt=20, max_tokens=20 + i % 8))
        _step(replica)
        if replica.events["big"]:
            break
    assert replica.events["small0"], "small ones go ahead while the big one does not fit"
    assert replica.events["big"], "the big one is not starved by a stream of small ones"


def test_a_stream_of_urgent_requests_does_not_starve_the_others() -> None:
    replica = FakeReplica(shape(slots=2, pages=64), policy=TIGHT, max_steps=1)
    replica.submit(request("patient", prompt=32, max_tokens=4, priority=9))
    for i in range(600):
        replica.submit(request(f"urgent{i}", prompt=12, max_tokens=4, priority=0))
        _step(replica)
    assert replica.events["patient"]


def test_a_prefill_that_urgent_ones_keep_from_the_quota_goes_on_all_the_same() -> None:
    replica = FakeReplica(shape(slots=4, pages=200), policy=PhasePolicy(refresh_tokens=16), max_steps=1)
    replica.submit(request("patient", prompt=400, max_tokens=4, priority=9))
    replica.step()
    for i in range(3000):
        if replica.events["patient"]:
            break
        replica.submit(request(f"urgent{i}", prompt=16, max_tokens=1, priority=0))
        _step(replica)
    assert replica.events["patient"]


def test_order_by_arrival_is_obeyed() -> None:
    policy = PhasePolicy(order=RefreshOrder.ARRIVAL, opens_per_step=1)
    replica = FakeReplica(shape(slots=4, pages=200), policy=policy)
    for i in range(4):
        replica.submit(request(f"r{i}", prompt=4, max_tokens=4, priority=-i))
    plans = replica.drain()
    assert [name for plan in plans for name in _ids(plan, RowKind.OPEN)] == ["r0", "r1", "r2", "r3"]


def test_a_step_looks_at_few_of_the_requests_that_wait() -> None:
    books, queue, cost = Books(shape(slots=4, pages=16)), RefreshQueue(), CostModel()
    states = [begin(request(f"r{i}", prompt=100, max_tokens=4), books.shape, 0.0, i) for i in range(1000)]
    for state in states:
        queue.push(state)
    draft = Draft(books, PhasePolicy(), cost)
    compose(draft, queue, 0.0)
    assert [row.request_id for row in draft.plan().rows] == ["r0", "r0"]
    assert sum(state.passed_over for state in states) <= CANDIDATES


@settings(max_examples=40)
@given(st.data())
def test_every_plan_includes_every_running_canvas(data: st.DataObject) -> None:
    policy = PhasePolicy(
        target_seconds=data.draw(st.sampled_from([0.0, 0.0012, 0.05])),
        refresh_tokens=data.draw(st.sampled_from([4, 32, 512])),
        opens_per_step=data.draw(st.integers(0, 4)),
    )
    replica = FakeReplica(shape(slots=3, pages=40), policy=policy, eos_share=0.2)
    for i in range(data.draw(st.integers(1, 12))):
        replica.submit(request(f"r{i}", data.draw(st.integers(1, 60)), data.draw(st.integers(1, 30))))
    running: set[str] = set()
    while replica.scheduler.has_work:
        plan = _step(replica)
        assert running <= _canvases(plan)
        ended = {name for name, events in replica.events.items() if events and events[-1].finish}
        running = _canvases(plan) - ended
