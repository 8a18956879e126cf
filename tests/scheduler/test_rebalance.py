"""Rebalancer: from long queues to free slots, seldom, and never back and forth."""

from dataclasses import replace

from easel.scheduler.placement import Outstanding, ReplicaView
from easel.scheduler.rebalance import COOLDOWN_SECONDS, INTERVAL_SECONDS, ORDER_SECONDS, Rebalancer
from tests.fakes import digest


def _view(
    name: str, active: int, waiting: int = 0, blocks_left: float = 0.0, constant: float = 5e-3
) -> ReplicaView:
    names = tuple(f"{name}{i}" for i in range(active))
    told = replace(digest(name, active=names), waiting=waiting, blocks_left=blocks_left)
    view = ReplicaView(replace(told, cost=replace(told.cost, constant=constant)), 0.0)
    for request_id in names:
        view.add(request_id, Outstanding(0.0, seen=True, prompt_tokens=64, max_tokens=256))
    return view


def _busy() -> ReplicaView:
    return _view("a", active=7, waiting=3, blocks_left=400.0)


def test_a_waiting_request_moves_to_where_a_slot_is_free() -> None:
    rebalancer = Rebalancer()
    rebalancer.look([_busy(), _view("b", active=1, blocks_left=9.0)], 0.0)
    assert rebalancer.of("a") == ("a6",)
    assert rebalancer.of("b") == ()


def test_nobody_is_moved_from_a_replica_to_itself() -> None:
    rebalancer = Rebalancer()
    slot_just_freed = _view("a", active=3, waiting=1, blocks_left=400.0)
    rebalancer.look([slot_just_freed], 0.0)
    assert rebalancer.of("a") == ()
    rebalancer.look([slot_just_freed, _view("b", active=7, waiting=1, blocks_left=9.0)], INTERVAL_SECONDS)
    assert rebalancer.of("a") == ()


def test_an_order_is_repeated_until_the_request_has_left() -> None:
    rebalancer, views = Rebalancer(), [_busy(), _view("b", active=1)]
    rebalancer.look(views, 0.0)
    rebalancer.look(views, INTERVAL_SECONDS)
    assert rebalancer.of("a") == ("a6",)
    rebalancer.left("a", "a6")
    assert rebalancer.of("a") == ()


def test_a_request_does_not_move_again_before_it_has_rested() -> None:
    rebalancer = Rebalancer()
    rebalancer.look([_busy(), _view("b", active=1)], 0.0)
    rebalancer.left("a", "a6")
    only = _view("a", active=7, waiting=1, blocks_left=400.0)
    rebalancer.look([only, _view("b", active=1)], 1.0)
    assert rebalancer.of("a") == ()
    rebalancer.look([only, _view("b", active=1)], COOLDOWN_SECONDS)
    assert rebalancer.of("a") == ("a6",)


def test_an_order_that_is_not_followed_is_given_up() -> None:
    rebalancer = Rebalancer()
    rebalancer.look([_busy(), _view("b", active=1)], 0.0)
    rebalancer.look([_view("b", active=1)], ORDER_SECONDS + 1.0)
    assert rebalancer.of("a") == ()


def test_short_queues_and_full_takers_are_left_alone() -> None:
    for views in (
        [_view("a", active=5, waiting=1, blocks_left=4.0), _view("b", active=1)],
        [_busy(), _view("b", active=4, blocks_left=9.0)],
        [_view("a", active=3, blocks_left=30.0), _view("b", active=1, blocks_left=9.0)],
    ):
        rebalancer = Rebalancer()
        rebalancer.look(views, 0.0)
        assert [rebalancer.of(name) for name in "ab"] == [(), ()]


def test_nothing_moves_to_or_by_choice_from_a_draining_replica() -> None:
    taker, giver = _view("b", active=0), _busy()
    taker.draining = True
    rebalancer = Rebalancer()
    rebalancer.look([giver, taker], 0.0)
    assert rebalancer.of("a") == ()


def test_a_running_request_moves_only_if_its_steps_become_much_shorter() -> None:
    views = [_view("a", active=4, blocks_left=400.0), _view("b", active=0)]
    for view in views:
        digest = view.digest
        view.take(replace(digest, cost=replace(digest.cost, constant=1e-3, per_head_row=1e-3)), 0.0)
    rebalancer = Rebalancer()
    rebalancer.look(views, 0.0)
    assert rebalancer.of("a") == ("a3",)
    flat = [_view("a", active=4, blocks_left=400.0, constant=1.0), _view("b", active=0, constant=1.0)]
    rebalancer = Rebalancer()
    rebalancer.look(flat, 0.0)
    assert rebalancer.of("a") == ()


def test_few_move_at_a_time() -> None:
    givers = [_view(name, active=7, waiting=3, blocks_left=400.0) for name in "acegikmo"]
    takers = [_view(name, active=0) for name in "bdfhjlnp"]
    rebalancer = Rebalancer()
    rebalancer.look([*givers, *takers], 0.0)
    assert sum(len(rebalancer.of(view.replica_id)) for view in givers) == 2
