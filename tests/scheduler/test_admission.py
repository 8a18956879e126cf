"""WaitingRoom: class, fair shares between tenants, slack, and the oldest now and then."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.admission import OLDEST_SHARE, AdmissionTicket, WaitingRoom
from easel.scheduler.tenants import TenantLedger, TenantLimits


def _ticket(name: str, tenant: str = "", tokens: int = 10, priority: int = 0) -> AdmissionTicket:
    return AdmissionTicket(name, tokens // 2, tokens - tokens // 2, tenant=tenant, priority=priority)


class _Room:
    """A room and its ledger, used as the central scheduler does."""

    def __init__(self, limits: dict[str, TenantLimits] | None = None) -> None:
        self.ledger = TenantLedger(limits)
        self.room = WaitingRoom(self.ledger)

    def push(self, ticket: AdmissionTicket, now: float = 0.0, latest_start: float | None = None) -> None:
        self.ledger.enter(ticket.request_id, ticket.tenant, ticket.prompt_tokens, ticket.max_tokens, now)
        self.room.push(ticket, now, latest_start)

    def head(self, *passing: str, now: float = 0.0) -> AdmissionTicket | None:
        waiting = self.room.head(set(passing), now)
        return None if waiting is None else waiting.ticket

    def serve(self, now: float = 0.0) -> AdmissionTicket:
        ticket = self.head(now=now)
        assert ticket is not None
        self.room.serve(ticket)
        self.ledger.start(ticket.request_id)
        return ticket


def test_one_tenants_tickets_are_served_by_arrival() -> None:
    room = _Room()
    for i in range(5):
        room.push(_ticket(f"r{i}"))
    assert [room.serve().request_id for _ in range(5)] == [f"r{i}" for i in range(5)]
    assert room.head() is None


def test_priority_comes_first_but_not_always() -> None:
    room = _Room()
    room.push(_ticket("patient", priority=5))
    for i in range(20):
        room.push(_ticket(f"urgent{i}"))
    served = [room.serve().request_id for _ in range(OLDEST_SHARE)]
    assert served[0] == "urgent0"
    assert "patient" in served


def test_a_tenant_with_many_requests_does_not_crowd_out_one_with_few() -> None:
    room = _Room()
    for i in range(50):
        room.push(_ticket(f"many{i}", tenant="many"))
    for i in range(5):
        room.push(_ticket(f"few{i}", tenant="few"))
    served = [room.serve().tenant for _ in range(16)]
    assert served.count("few") == 5


def test_shares_are_counted_in_tokens() -> None:
    room = _Room()
    for i in range(40):
        room.push(_ticket(f"small{i}", tenant="small", tokens=10))
        room.push(_ticket(f"large{i}", tenant="large", tokens=40))
    served = [room.serve().tenant for _ in range(30)]
    # Every fourth goes to the oldest, which only softens the ratio of four to one.
    assert served.count("small") > 1.8 * served.count("large")


def test_a_pause_earns_no_credit() -> None:
    room = _Room()
    room.push(_ticket("early", tenant="idle"))
    room.serve()
    for i in range(60):
        room.push(_ticket(f"busy{i}", tenant="busy"))
    for _ in range(40):
        room.serve()
    for i in range(20):
        room.push(_ticket(f"idle{i}", tenant="idle"))
    served = [room.serve().tenant for _ in range(12)]
    assert 4 <= served.count("busy") <= 8


def test_a_ticket_that_is_passed_over_keeps_its_place() -> None:
    room = _Room()
    for name in ("a", "b"):
        room.push(_ticket(name))
    head = room.head("a")
    assert head is not None
    assert head.request_id == "b"
    assert room.serve().request_id == "a"


def test_among_a_tenants_own_the_least_slack_goes_first() -> None:
    room = _Room()
    room.push(_ticket("whenever"))
    room.push(replace(_ticket("soon"), deadline_seconds=9.0), latest_start=8.0)
    room.push(replace(_ticket("sooner"), deadline_seconds=6.0), latest_start=5.0)
    assert [room.serve().request_id for _ in range(3)] == ["sooner", "soon", "whenever"]


def test_a_short_deadline_does_not_take_another_tenants_turn() -> None:
    room = _Room()
    for i in range(40):
        room.push(_ticket(f"calm{i}", "calm"))
        room.push(replace(_ticket(f"hasty{i}", "hasty"), deadline_seconds=4.0), latest_start=3.5)
    served = [room.serve().tenant for _ in range(40)]
    assert 18 <= served.count("calm") <= 22


def test_a_promise_about_to_be_broken_goes_first_and_is_paid_for() -> None:
    room = _Room()
    room.push(_ticket("before", "hasty"))
    room.push(_ticket("other", "calm"))
    room.serve()
    room.push(replace(_ticket("promised", "hasty"), deadline_seconds=4.0), latest_start=3.5)
    assert room.head(now=0.0) == _ticket("other", "calm")
    assert room.serve(now=3.0).request_id == "promised"
    for i in range(6):
        room.push(_ticket(f"calm{i}", "calm"), now=3.0)
        room.push(_ticket(f"hasty{i}", "hasty"), now=3.0)
    assert [room.serve(now=3.0).tenant for _ in range(2)] == ["calm", "calm"]


def test_weights_scale_shares() -> None:
    room = _Room({"big": TenantLimits(weight=3.0)})
    for i in range(80):
        room.push(_ticket(f"big{i}", "big"))
        room.push(_ticket(f"small{i}", "small"))
    served = [room.serve().tenant for _ in range(80)]
    assert 1.8 <= served.count("big") / served.count("small") <= 3.2


def test_a_tenant_that_runs_all_it_may_waits_and_blocks_nobody() -> None:
    room = _Room({"narrow": TenantLimits(max_canvases=1)})
    for i in range(3):
        room.push(_ticket(f"n{i}", "narrow"))
        room.push(_ticket(f"w{i}", "wide"))
    served = [room.serve().request_id for _ in range(4)]
    assert [name for name in served if name[0] == "n"] == ["n0"]
    assert room.head() is None
    room.ledger.settle("n0", 1)
    assert room.serve().request_id == "n1"


def test_those_too_late_are_taken_out_but_not_the_admitted() -> None:
    room = _Room()
    room.push(replace(_ticket("late"), deadline_seconds=2.0), latest_start=1.0)
    room.push(replace(_ticket("admitted"), deadline_seconds=2.0, admitted=True), latest_start=1.0)
    room.push(replace(_ticket("fine"), deadline_seconds=4.0), latest_start=3.0)
    room.push(replace(_ticket("gone"), deadline_seconds=2.0), latest_start=1.0)
    room.room.discard("gone")
    assert room.room.late(1.0) == []
    assert [waiting.ticket.request_id for waiting in room.room.late(1.5)] == ["late"]
    assert room.room.least_slack(1.5) == 3.0 - 1.5 - 1.0
    assert len(room.room) == 2


def test_what_is_ahead_is_bounded_by_fair_shares() -> None:
    room = _Room()
    for i in range(100):
        room.push(_ticket(f"many{i}", "many"))
    room.push(_ticket("urgent", "many", priority=-1))
    own = room.room.ahead_of(_ticket("next", "many"), 30.0)
    other = room.room.ahead_of(_ticket("first", "few"), 30.0)
    assert own.tokens == room.room.demand.tokens
    assert other.tokens < 40.0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from(["serve", "leave", ""])))
)
def test_everyone_is_served_or_leaves_exactly_once(events: list[tuple[str, int, str]]) -> None:
    room = _Room()
    gone: list[str] = []
    for number, (tenant, priority, then) in enumerate(events):
        room.push(_ticket(f"r{number}", tenant=tenant, priority=priority))
        if then == "serve":
            gone.append(room.serve().request_id)
        elif then == "leave" and f"r{number // 2}" in room.room:
            room.room.discard(f"r{number // 2}")
            gone.append(f"r{number // 2}")
        assert len(room.room) == number + 1 - len(gone)
    while len(room.room):
        gone.append(room.serve().request_id)
    assert sorted(gone) == sorted(f"r{number}" for number in range(len(events)))
    assert room.head() is None
