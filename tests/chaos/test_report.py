"""What counts as passed, and what does not."""

import pytest

from tests.chaos.faults import FaultKind
from tests.chaos.questions import Difference
from tests.chaos.report import Injected, Report
from tests.chaos.tally import Tally


def report_of(tally: Tally, *injected: Injected) -> Report:
    return Report(seed=1, tally=tally, memory_before={}, injected=list(injected))


def answered() -> Tally:
    return Tally(blocks=10, tokens=300)


def test_right_answers_pass() -> None:
    assert report_of(answered()).passed
    assert report_of(answered()).lines()[-1] == "PASSED"


def test_a_load_that_got_nothing_does_not_pass() -> None:
    assert not report_of(Tally()).passed


@pytest.mark.parametrize("difference", [Difference(lost=1), Difference(doubled=1), Difference(changed=1)])
def test_a_wrong_token_does_not_pass(difference: Difference) -> None:
    tally = answered()
    tally.wrong(difference, "it")
    assert not report_of(tally).passed
    assert "it" in "\n".join(report_of(tally).lines())


def test_a_failed_request_does_not_pass() -> None:
    tally = answered()
    tally.failure("it")
    assert not report_of(tally).passed


@pytest.mark.parametrize(
    ("kind", "excused"),
    [(FaultKind.REDIS_WIPE, True), (FaultKind.REDIS_AWAY, True), (FaultKind.GATEWAY_KILL, False)],
)
def test_only_a_redis_that_was_lost_excuses_a_forgotten_answer(kind: FaultKind, excused: bool) -> None:
    tally = answered()
    tally.asked_anew.append(105.0)
    assert report_of(tally, Injected(kind, 100.0, 101.0, 103.0, "")).passed is excused


def test_a_fault_is_charged_with_the_stalls_of_its_time_alone() -> None:
    tally = answered()
    tally.waited(0.0, "long before")
    found = report_of(tally, Injected(FaultKind.WORKER_KILL, -20.0, -19.0, -10.0, "")).as_json()
    assert found["by_kind"]["worker-kill"]["longest_stall"] == 0.0
    assert found["longest_stalls"][0]["about"] == "long before"
