"""RefreshQueue: by priority and slack, and nobody is left behind."""

from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.cost import CostModel
from easel.scheduler.life import RequestState, begin
from easel.scheduler.messages import RefreshOrder
from easel.scheduler.queue import OLDEST_SHARE, PATIENCE, RefreshQueue, update_due
from tests.fakes import request, shape


def _push(
    queue: RefreshQueue, order: int, prompt: int = 8, priority: int = 0, now: float = 0.0
) -> RequestState:
    state = begin(request(f"r{order}", prompt, priority=priority), shape(pages=2000), now, order)
    update_due(state, CostModel())
    queue.push(state)
    return state


def _candidates(queue: RefreshQueue, order: RefreshOrder = RefreshOrder.SLACK, limit: int = 99) -> list[str]:
    with closing(queue.candidates(order, limit)) as states:
        return [state.request_id for state in states]


def _admit_first(queue: RefreshQueue) -> str:
    with closing(queue.candidates(RefreshOrder.SLACK, 4)) as states:
        state = next(states)
        queue.admitted(state)
    return state.request_id


def test_the_one_with_the_least_slack_comes_first() -> None:
    queue = RefreshQueue()
    _push(queue, 0, now=3.0)
    _push(queue, 1, now=1.0)
    _push(queue, 2, now=2.0)
    assert _candidates(queue) == ["r1", "r2", "r0"]
    assert _candidates(queue, RefreshOrder.ARRIVAL) == ["r0", "r1", "r2"]


def test_priority_comes_before_slack() -> None:
    queue = RefreshQueue()
    _push(queue, 0, now=0.0, priority=1)
    _push(queue, 1, now=9.0, priority=0)
    assert _candidates(queue) == ["r1", "r0"]


def test_a_long_prompt_goes_behind_short_ones_that_came_with_it_but_not_behind_all_later_ones() -> None:
    queue = RefreshQueue()
    _push(queue, 0, prompt=4000)
    _push(queue, 1, prompt=8)
    _push(queue, 2, prompt=8, now=60.0)
    assert _candidates(queue) == ["r1", "r0", "r2"]


def test_looking_at_candidates_takes_nobody_out() -> None:
    queue = RefreshQueue()
    for order in range(10):
        _push(queue, order)
    assert _candidates(queue, limit=3) == ["r0", "r1", "r2"]
    assert _candidates(queue) == [f"r{order}" for order in range(10)]


def test_who_was_cancelled_is_no_candidate() -> None:
    queue = RefreshQueue()
    states = [_push(queue, order) for order in range(3)]
    queue.discard(states[0])
    assert _candidates(queue) == ["r1", "r2"]
    assert len(queue) == 2


def test_cancelled_requests_do_not_pile_up_behind_the_scenes() -> None:
    queue = RefreshQueue()
    _push(queue, 0, priority=-1)
    for order in range(1, 5000):
        queue.discard(_push(queue, order))
    assert queue.stale < 100


def test_one_admission_in_a_few_goes_to_the_longest_waiting_whatever_its_priority() -> None:
    queue = RefreshQueue()
    _push(queue, 0, priority=9)
    admitted: list[str] = []
    for order in range(1, OLDEST_SHARE + 1):
        _push(queue, order)
        admitted.append(_admit_first(queue))
    assert "r0" in admitted


def test_who_was_passed_over_too_often_bars_the_way() -> None:
    queue = RefreshQueue()
    oldest = _push(queue, 0, priority=9)
    _push(queue, 1)
    oldest.passed_over = PATIENCE
    assert _candidates(queue) == ["r0"]


def test_the_prefill_that_waits_is_known() -> None:
    queue = RefreshQueue()
    states = [_push(queue, order, prompt=10) for order in range(3)]
    assert queue.prefill_tokens == 3 * 8
    queue.discard(states[1])
    queue.admitted(states[0])
    assert queue.prefill_tokens == 8


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=60), st.integers(1, 5))
def test_everybody_is_admitted_in_the_end(arrivals: list[tuple[int, bool]], limit: int) -> None:
    queue = RefreshQueue()
    expected: set[str] = set()
    admitted: list[str] = []
    for order, (priority, admit) in enumerate(arrivals):
        expected.add(_push(queue, order, priority=priority).request_id)
        _candidates(queue, limit=limit)
        if admit:
            admitted.append(_admit_first(queue))
    while len(queue):
        admitted.append(_admit_first(queue))
    assert set(admitted) == expected
    assert len(admitted) == len(expected)
