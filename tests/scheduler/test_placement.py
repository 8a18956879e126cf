"""Placement: a request goes where it is predicted to be finished first."""

from dataclasses import replace

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import PhasePolicy, ReplicaDigest
from easel.scheduler.placement import Outstanding, ReplicaView, choose
from tests.fakes import digest

TICKET = AdmissionTicket("new", prompt_tokens=256, max_tokens=64)


def _view(name: str, outstanding: int = 0, pages_available: int = 400) -> ReplicaView:
    view = ReplicaView(digest(name, pages_available=pages_available), 0.0)
    for i in range(outstanding):
        view.add(f"{name}{i}", Outstanding(0.0, seen=True))
    return view


def _told(view: ReplicaView, digest: ReplicaDigest) -> ReplicaView:
    view.take(digest, 0.0)
    return view


def _choose(
    views: list[ReplicaView], cached: dict[str, int] | None = None, ticket: AdmissionTicket = TICKET
) -> str:
    choice = choose(ticket, views, cached or {}, queue_ahead=2)
    return choice.view.replica_id if choice is not None else ""


def test_the_less_loaded_replica_is_preferred() -> None:
    assert _choose([_view("a", outstanding=3), _view("b", outstanding=1)]) == "b"


def test_the_replica_that_has_the_prefix_cached_is_preferred() -> None:
    assert _choose([_view("a"), _view("b"), _view("c")], {"b": 30}) == "b"


def test_a_cached_prefix_is_not_worth_a_long_wait() -> None:
    assert _choose([_view("a"), _view("b", outstanding=5)], {"b": 30}) == "a"


def test_a_cached_prefix_is_not_worth_waiting_for_a_slot() -> None:
    assert _choose([_view("a", outstanding=4), _view("b", outstanding=3)], {"a": 30}) == "b"


def test_prefill_that_waits_on_a_replica_counts_against_it() -> None:
    busy = _told(_view("a"), replace(digest("a"), waiting_prefill_tokens=5000))
    assert _choose([busy, _view("b", outstanding=1)]) == "b"


def test_what_was_sent_since_the_last_digest_counts_too() -> None:
    just_sent, seen = _view("a"), _view("b")
    just_sent.add("x", Outstanding(0.0, prefill_tokens=5000))
    seen.add("y", Outstanding(0.0, prefill_tokens=5000))
    seen.saw("y")
    assert _choose([just_sent, seen]) == "b"


def test_a_replica_short_of_pages_is_avoided() -> None:
    assert _choose([_view("a", pages_available=3), _view("b")]) == "b"


def test_a_slower_replica_is_avoided() -> None:
    slow = _told(_view("a"), replace(digest("a"), cost=replace(digest("a").cost, constant=0.1)))
    assert _choose([slow, _view("b", outstanding=2)]) == "b"


def test_no_more_are_sent_than_slots_and_the_queue_ahead_allow() -> None:
    assert _choose([_view("a", outstanding=5)]) == "a"
    assert _choose([_view("a", outstanding=6)]) == ""


def test_an_excluded_replica_is_better_than_none() -> None:
    ticket = replace(TICKET, excluded=frozenset({"b"}))
    assert _choose([_view("a", outstanding=5), _view("b")], ticket=ticket) == "a"
    assert _choose([_view("b")], ticket=ticket) == "b"


def test_a_request_larger_than_the_replica_is_not_sent_there() -> None:
    ticket = replace(TICKET, prompt_tokens=8 * 500)
    assert _choose([_view("a")], ticket=ticket) == ""


def test_nothing_is_sent_to_a_replica_that_drains_or_is_reserved() -> None:
    draining = _told(_view("a"), replace(digest("a"), draining=True))
    emptying, reserved = _view("b"), _view("c")
    emptying.draining = reserved.reserved = True
    assert _choose([draining, emptying, reserved]) == ""
    assert _choose([draining, emptying, reserved, _view("d", outstanding=5)]) == "d"


def test_a_small_refresh_quota_makes_waiting_prefill_dearer() -> None:
    views = [_told(_view(name), replace(digest(name), waiting_prefill_tokens=800)) for name in "ab"]
    views[0].policy = PhasePolicy(refresh_tokens=16)
    views[1].policy = PhasePolicy(refresh_tokens=1024)
    assert _choose(views) == "b"


def test_of_two_full_replicas_the_one_with_less_left_to_do_is_preferred() -> None:
    views = [
        _told(_view("a", outstanding=4), replace(digest("a"), blocks_left=60.0, steps_left=9.0)),
        _told(_view("b", outstanding=4), replace(digest("b"), blocks_left=6.0, steps_left=9.0)),
    ]
    assert _choose(views) == "b"


def test_a_deadline_goes_before_a_cached_prefix() -> None:
    holder, empty = _told(_view("a"), replace(digest("a"), waiting_prefill_tokens=300)), _view("b")
    finishes = [view.predict(TICKET, pages, 40, 64.0)[1] for view, pages in ((holder, 31), (empty, 0))]
    assert finishes[1] < finishes[0]
    for seconds_left, name in ((None, "a"), ((finishes[0] + finishes[1]) / 2, "b")):
        choice = choose(TICKET, [holder, empty], {"a": 31}, 2, 1.0, seconds_left)
        assert choice is not None
        assert choice.view.replica_id == name


def test_sums_over_what_is_outstanding_follow_every_change() -> None:
    view = _view("a")
    view.add("x", Outstanding(0.0, prefill_tokens=10, pages=3, output_tokens=20.0))
    view.add("y", Outstanding(0.0, prefill_tokens=5, pages=2, output_tokens=8.0))
    assert (view.unseen_prefill, view.unseen_pages, view.unseen_output) == (15, 5, 28.0)
    view.saw("x")
    view.saw("x")
    view.remove("x", 0.0)
    assert (view.unseen_prefill, view.unseen_pages, view.unseen_output) == (5, 2, 8.0)
    view.remove("y", 0.0)
    assert (view.unseen_prefill, view.unseen_pages, view.left_seconds()) == (0, 0, 0.0)
