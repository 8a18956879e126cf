"""Fleet: with many replicas few are compared, and the choice is nearly as good."""

from dataclasses import replace
from random import Random

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.fleet import COMPARED_ALL, PREFIX_SAMPLED, SAMPLED, Fleet
from easel.scheduler.placement import Outstanding, ReplicaView
from easel.scheduler.prefix_cache import page_chain
from tests.fakes import digest

TICKET = AdmissionTicket("new", 256, 64, tuple(page_chain(range(256), 8, "")))


def _fleet(count: int, seed: int = 0) -> Fleet:
    fleet = Fleet(queue_ahead=2, timeout_seconds=3.0, index_pages=10_000, draw=Random(seed))
    for i in range(count):
        fleet.hear(digest(f"x{i}"), 0.0)
    return fleet


def _load(fleet: Fleet, name: str, requests: int) -> None:
    for _ in range(requests):
        view = fleet.views[name]
        fleet.add(view, f"{name}/{len(view.outstanding)}", Outstanding(0.0, seen=True, output_tokens=64.0))


def _best(fleet: Fleet, now: float = 0.0) -> str:
    choice = fleet.best(TICKET, 1.0, now)
    return "" if choice is None else choice.view.replica_id


def test_few_replicas_are_all_compared() -> None:
    fleet = _fleet(COMPARED_ALL)
    for i in range(COMPARED_ALL):
        _load(fleet, f"x{i}", 1 if i == 11 else 2)
    assert {_best(fleet) for _ in range(20)} == {"x11"}


def test_of_many_only_a_few_are_compared() -> None:
    fleet, seen = _fleet(500), set[str]()
    for i in range(500):
        fleet.index.add(TICKET.page_hashes[:1], f"x{i}")
    names = dict.fromkeys(fleet.views)

    class Counting(dict[str, ReplicaView]):
        def __getitem__(self, key: str) -> ReplicaView:
            seen.add(key)
            return super().__getitem__(key)

    fleet.views = Counting(fleet.views)
    assert _best(fleet) in names
    assert len(seen) <= SAMPLED + PREFIX_SAMPLED


def test_the_holder_of_a_prefix_is_found_among_many() -> None:
    fleet = _fleet(500)
    fleet.index.add(TICKET.page_hashes, "x321")
    assert _best(fleet) == "x321"


def test_only_those_with_room_are_drawn() -> None:
    fleet = _fleet(100)
    for i in range(100):
        if i not in (7, 77):
            _load(fleet, f"x{i}", 6)
    assert {_best(fleet) for _ in range(20)} <= {"x7", "x77"}
    _load(fleet, "x7", 6)
    _load(fleet, "x77", 6)
    assert _best(fleet) == ""
    assert fleet.latest_open() is None
    fleet.take_away("x50", "x50/0", 0.0)
    assert _best(fleet) == "x50"


def test_a_sample_spreads_load_nearly_as_evenly_as_comparing_all() -> None:
    fleet = _fleet(200)
    for i in range(400):
        choice = fleet.best(TICKET, 1.0, 0.0)
        assert choice is not None
        fleet.add(choice.view, f"r{i}", Outstanding(0.0, output_tokens=64.0))
    counts = [len(view.outstanding) for view in fleet.views.values()]
    assert max(counts) <= 4


def test_the_same_draws_make_the_same_choices() -> None:
    assert [_best(_fleet(100, seed)) for seed in (1, 2, 3)] == [
        _best(_fleet(100, seed)) for seed in (1, 2, 3)
    ]


def test_the_silent_and_the_closed_are_never_chosen() -> None:
    fleet = _fleet(40)
    for i in range(40):
        fleet.hear(replace(digest(f"x{i}", 2), draining=i != 5), 2.0 if i in (5, 6) else 0.0)
    assert {_best(fleet, now=4.0) for _ in range(5)} == {"x5"}
    assert _best(fleet, now=6.0) == ""


def test_capacity_counts_what_is_sent_at_once() -> None:
    fleet = _fleet(100)
    before = fleet.capacity(0.0)
    free, left = before.free, before.left_seconds
    _load(fleet, "x3", 5)
    after = fleet.capacity(0.0)
    assert (after.slots, after.free) == (400, free - 4)
    assert after.left_seconds > left
    assert fleet.capacity(9.0).slots == 0


def test_news_of_a_digest_are_what_changed() -> None:
    fleet = _fleet(1)
    _load(fleet, "x0", 1)
    view = fleet.views["x0"]
    fleet.add(view, "sent", Outstanding(0.0))
    fleet.add(view, "lost", Outstanding(0.0))
    heard = fleet.hear(digest("x0", 2, ("x0/0", "sent", "found")), 1.0)
    assert heard is not None
    assert fleet.news(*heard, grace=5.0, now=1.0) == (["found"], [])
    heard = fleet.hear(digest("x0", 3, ("sent",)), 5.0)
    assert heard is not None
    assert fleet.news(*heard, grace=5.0, now=5.0) == ([], ["x0/0", "lost"])
