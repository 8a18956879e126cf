"""Placement: a request goes where it is predicted to be finished first."""

from dataclasses import replace

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.placement import Outstanding, ReplicaView, choose
from tests.fakes import digest

TICKET = AdmissionTicket("new", prompt_tokens=256, max_tokens=64)


def _view(name: str, outstanding: int = 0, pages_available: int = 400) -> ReplicaView:
    view = ReplicaView(digest(name, pages_available=pages_available), 0.0)
    view.outstanding = {f"{name}{i}": Outstanding(0.0, seen=True) for i in range(outstanding)}
    return view


def _choose(
    views: list[ReplicaView], cached: dict[str, int] | None = None, ticket: AdmissionTicket = TICKET
) -> str:
    view = choose(ticket, views, cached or {}, queue_ahead=2)
    return view.replica_id if view is not None else ""


def test_the_less_loaded_replica_is_preferred() -> None:
    assert _choose([_view("a", outstanding=3), _view("b", outstanding=1)]) == "b"


def test_the_replica_that_has_the_prefix_cached_is_preferred() -> None:
    assert _choose([_view("a"), _view("b"), _view("c")], {"b": 30}) == "b"


def test_a_cached_prefix_is_not_worth_a_long_wait() -> None:
    assert _choose([_view("a"), _view("b", outstanding=5)], {"b": 30}) == "a"


def test_a_cached_prefix_is_not_worth_waiting_for_a_slot() -> None:
    assert _choose([_view("a", outstanding=4), _view("b", outstanding=3)], {"a": 30}) == "b"


def test_prefill_that_waits_on_a_replica_counts_against_it() -> None:
    busy = _view("a")
    busy.digest = replace(busy.digest, waiting_prefill_tokens=5000)
    assert _choose([busy, _view("b", outstanding=1)]) == "b"


def test_what_was_sent_since_the_last_digest_counts_too() -> None:
    just_sent, seen = _view("a"), _view("b")
    just_sent.outstanding["x"] = Outstanding(0.0, prefill_tokens=5000)
    seen.outstanding["y"] = Outstanding(0.0, prefill_tokens=5000, seen=True)
    assert _choose([just_sent, seen]) == "b"


def test_a_replica_short_of_pages_is_avoided() -> None:
    assert _choose([_view("a", pages_available=3), _view("b")]) == "b"


def test_a_slower_replica_is_avoided() -> None:
    slow = _view("a")
    slow.digest = replace(slow.digest, cost=replace(slow.digest.cost, constant=0.1))
    assert _choose([slow, _view("b", outstanding=2)]) == "b"


def test_no_more_are_sent_than_slots_and_the_queue_ahead_allow() -> None:
    assert _choose([_view("a", outstanding=5)]) == "a"
    assert _choose([_view("a", outstanding=6)]) == ""


def test_an_excluded_replica_is_never_chosen() -> None:
    ticket = replace(TICKET, excluded=frozenset({"b"}))
    assert _choose([_view("a", outstanding=5), _view("b")], ticket=ticket) == "a"
    assert _choose([_view("b")], ticket=ticket) == ""


def test_a_request_larger_than_the_replica_is_not_sent_there() -> None:
    ticket = replace(TICKET, prompt_tokens=8 * 500)
    assert _choose([_view("a")], ticket=ticket) == ""
