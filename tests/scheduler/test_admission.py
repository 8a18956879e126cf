"""WaitingRoom: priority, fair shares, arrival."""

from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.admission import OLDEST_SHARE, AdmissionTicket, WaitingRoom


def _ticket(name: str, tenant: str = "", tokens: int = 10, priority: int = 0) -> AdmissionTicket:
    return AdmissionTicket(name, tokens // 2, tokens - tokens // 2, tenant=tenant, priority=priority)


def _serve(room: WaitingRoom) -> AdmissionTicket:
    ticket = room.head(frozenset())
    assert ticket is not None
    room.serve(ticket)
    return ticket


def test_one_tenants_tickets_are_served_by_arrival() -> None:
    room = WaitingRoom()
    for i in range(5):
        room.push(_ticket(f"r{i}"))
    assert [_serve(room).request_id for _ in range(5)] == [f"r{i}" for i in range(5)]
    assert room.head(frozenset()) is None


def test_priority_comes_first_but_not_always() -> None:
    room = WaitingRoom()
    room.push(_ticket("patient", priority=5))
    for i in range(20):
        room.push(_ticket(f"urgent{i}"))
    served = [_serve(room).request_id for _ in range(OLDEST_SHARE)]
    assert served[0] == "urgent0"
    assert "patient" in served


def test_a_tenant_with_many_requests_does_not_crowd_out_one_with_few() -> None:
    room = WaitingRoom()
    for i in range(50):
        room.push(_ticket(f"many{i}", tenant="many"))
    for i in range(5):
        room.push(_ticket(f"few{i}", tenant="few"))
    served = [_serve(room).tenant for _ in range(16)]
    assert served.count("few") == 5


def test_shares_are_counted_in_tokens() -> None:
    room = WaitingRoom()
    for i in range(40):
        room.push(_ticket(f"small{i}", tenant="small", tokens=10))
        room.push(_ticket(f"large{i}", tenant="large", tokens=40))
    served = [_serve(room).tenant for _ in range(30)]
    # Every fourth goes to the oldest, which only softens the ratio of four to one.
    assert served.count("small") > 1.8 * served.count("large")


def test_a_pause_earns_no_credit() -> None:
    room = WaitingRoom()
    room.push(_ticket("early", tenant="idle"))
    _serve(room)
    for i in range(60):
        room.push(_ticket(f"busy{i}", tenant="busy"))
    for _ in range(40):
        _serve(room)
    for i in range(20):
        room.push(_ticket(f"idle{i}", tenant="idle"))
    served = [_serve(room).tenant for _ in range(12)]
    assert 4 <= served.count("busy") <= 8


def test_a_ticket_that_is_passed_over_keeps_its_place() -> None:
    room = WaitingRoom()
    for name in ("a", "b"):
        room.push(_ticket(name))
    head = room.head({"a"})
    assert head is not None
    assert head.request_id == "b"
    assert _serve(room).request_id == "a"


def test_counters_of_tenants_that_left_do_not_pile_up() -> None:
    room = WaitingRoom()
    for i in range(5000):
        room.push(_ticket(f"r{i}", tenant=f"tenant{i}"))
        _serve(room)
    assert len(room.served_tokens) < 3000


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from(["serve", "leave", ""])))
)
def test_everyone_is_served_or_leaves_exactly_once(events: list[tuple[str, int, str]]) -> None:
    room = WaitingRoom()
    gone: list[str] = []
    for number, (tenant, priority, then) in enumerate(events):
        room.push(_ticket(f"r{number}", tenant=tenant, priority=priority))
        if then == "serve":
            gone.append(_serve(room).request_id)
        elif then == "leave" and f"r{number // 2}" in room:
            room.discard(f"r{number // 2}")
            gone.append(f"r{number // 2}")
        assert len(room) == number + 1 - len(gone)
    while len(room):
        gone.append(_serve(room).request_id)
    assert sorted(gone) == sorted(f"r{number}" for number in range(len(events)))
    assert room.head(frozenset()) is None
