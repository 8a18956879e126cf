"""TenantLedger: limits, counters, and charges that are corrected once the truth is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.errors import TenantLimit
from easel.scheduler.tenants import ACCOUNTS_KEPT, CHARGES_KEPT, TenantLedger, TenantLimits


def _ledger(**limits: TenantLimits) -> TenantLedger:
    return TenantLedger(limits)


def test_one_request_too_many_is_refused_until_another_ends() -> None:
    ledger = _ledger(a=TenantLimits(max_requests=2))
    for name in ("r0", "r1"):
        ledger.check("a", 10, 0.0, 3.0)
        ledger.enter(name, "a", 5, 5, 0.0)
    with pytest.raises(TenantLimit) as refused:
        ledger.check("a", 10, 0.0, 3.0)
    assert (refused.value.limit, refused.value.retry_after_seconds) == (2, 3.0)
    ledger.check("b", 10, 0.0, 3.0)
    ledger.settle("r0", 5)
    ledger.check("a", 10, 0.0, 3.0)


def test_tokens_of_a_minute_come_back_at_a_steady_rate() -> None:
    ledger = _ledger(a=TenantLimits(tokens_per_minute=600))
    ledger.check("a", 600, 0.0, 1.0)
    ledger.enter("r0", "a", 500, 100, 0.0)
    with pytest.raises(TenantLimit) as refused:
        ledger.check("a", 100, 0.0, 1.0)
    assert refused.value.retry_after_seconds == pytest.approx(10.0)
    ledger.check("a", 100, 10.0, 1.0)
    with pytest.raises(TenantLimit):
        ledger.check("a", 101, 10.0, 1.0)


def test_tokens_that_were_not_generated_are_given_back() -> None:
    ledger = _ledger(a=TenantLimits(tokens_per_minute=600, weight=2.0))
    ledger.enter("r0", "a", 100, 500, 0.0)
    ledger.start("r0")
    assert ledger.account("a").served == 300.0
    ledger.settle("r0", 60)
    assert ledger.account("a").served == 80.0
    ledger.check("a", 440, 0.0, 1.0)
    with pytest.raises(TenantLimit):
        ledger.check("a", 441, 0.0, 1.0)


def test_a_request_larger_than_a_minutes_tokens_waits_for_a_full_bucket() -> None:
    ledger = _ledger(a=TenantLimits(tokens_per_minute=60))
    ledger.check("a", 120, 0.0, 1.0)
    ledger.enter("r0", "a", 60, 60, 0.0)
    with pytest.raises(TenantLimit) as refused:
        ledger.check("a", 1, 0.0, 1.0)
    assert refused.value.retry_after_seconds == pytest.approx(61.0)


def test_a_request_that_changes_replicas_is_charged_once() -> None:
    ledger = _ledger(a=TenantLimits(max_requests=1))
    ledger.enter("r0", "a", 10, 20, 0.0)
    ledger.start("r0")
    ledger.leave("r0")
    account = ledger.account("a")
    assert (account.requests, account.canvases) == (0, 0)
    ledger.enter_again("r0", "a")
    ledger.start("r0")
    assert (account.requests, account.canvases, account.served) == (1, 1, 30.0)
    ledger.settle("r0", 5)
    assert (account.requests, account.canvases, account.served) == (0, 0, 15.0)


def test_one_that_only_waited_costs_nothing() -> None:
    ledger = _ledger(a=TenantLimits(tokens_per_minute=100))
    ledger.enter("r0", "a", 50, 50, 0.0)
    ledger.settle("r0", None)
    ledger.check("a", 100, 0.0, 1.0)
    assert ledger.account("a").served == 0.0


def test_what_is_remembered_is_bounded() -> None:
    ledger = TenantLedger()
    for i in range(2 * CHARGES_KEPT):
        ledger.enter(f"r{i}", f"t{i}", 1, 1, 0.0)
        ledger.start(f"r{i}")
        ledger.leave(f"r{i}")
    assert len(ledger) <= 2 * ACCOUNTS_KEPT + 1


@given(st.lists(st.tuples(st.sampled_from("esblrx"), st.integers(0, 5)), max_size=80))
def test_accounts_count_what_is_under_way(events: list[tuple[str, int]]) -> None:
    ledger, waiting, running = TenantLedger(), set[str](), set[str]()
    for action, number in events:
        name = f"r{number}"
        here = name in waiting or name in running
        if action in "eb" and not here:
            ledger.enter_again(name, "a") if action == "b" else ledger.enter(name, "a", 3, 4, 0.0)
            waiting.add(name)
        elif action == "s" and name in waiting:
            ledger.start(name)
            waiting.discard(name)
            running.add(name)
        elif action in "lx":
            ledger.leave(name) if action == "l" else ledger.settle(name, 1)
            waiting.discard(name)
            running.discard(name)
        account = ledger.account("a")
        assert (account.requests, account.canvases) == (len(waiting) + len(running), len(running))
        assert account.served >= 0.0
