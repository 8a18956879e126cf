"""What a replica's digest predicts, and what it costs to say."""

from dataclasses import replace

import pytest

from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import ReplicaDigest
from tests.fakes import FakeReplica, request, shape


def _digest(replica: FakeReplica) -> ReplicaDigest:
    return replica.scheduler.digest("r", 0)


def _warm(steps: int = 4, slots: int = 2) -> FakeReplica:
    """One whose blocks take that many steps, and whose answers are as long as they may be."""
    replica = FakeReplica(shape(slots, pages=200), min_steps=steps, max_steps=steps)
    replica.submit(request("earlier", prompt=4, max_tokens=40))
    replica.drain()
    return replica


def test_an_idle_replica_expects_nothing_and_has_no_slack() -> None:
    digest = _digest(_warm())
    assert (digest.blocks_left, digest.steps_left, digest.least_slack) == (0.0, 0.0, None)
    assert (digest.preemptions, digest.draining) == (0, False)


def test_steps_of_open_canvases_and_blocks_behind_them_are_told_apart() -> None:
    replica = _warm()
    replica.submit(request("a", prompt=4, max_tokens=20))
    replica.submit(request("b", prompt=4, max_tokens=8))
    replica.submit(request("waits", prompt=4, max_tokens=12))
    replica.step()
    digest = _digest(replica)
    assert digest.steps_left == pytest.approx(2 * 3.0)
    assert digest.blocks_left == pytest.approx(4 + 1 + 3)
    replica.drain()
    assert _digest(replica).blocks_left == 0.0


def test_answers_that_end_early_make_the_next_ones_expected_shorter() -> None:
    replica = FakeReplica(shape(slots=1, pages=200), eos_share=1.0)
    for i in range(40):
        replica.submit(request(f"r{i}", prompt=4, max_tokens=40))
        replica.drain()
    share = _digest(replica).output_share
    assert share == pytest.approx(1.5 / 40, rel=0.5), "end-of-sequence is in every first block of 4"
    replica.submit(request("next", prompt=4, max_tokens=40))
    assert _digest(replica).blocks_left == 1.0


def test_blocks_that_were_committed_elsewhere_are_not_expected_again() -> None:
    replica = _warm()
    task = request("a", prompt=4, max_tokens=20)
    replica.submit(replace(task, committed=(50,) * 12))
    assert _digest(replica).blocks_left == pytest.approx(2.0)
    replica.step()
    assert _digest(replica).blocks_left == pytest.approx(1.0)


def test_slack_is_that_of_whoever_has_the_least_and_turns_negative() -> None:
    replica = _warm(slots=1)
    replica.submit(request("runs", prompt=4, max_tokens=40))
    replica.step()
    assert _digest(replica).least_slack is None, "it has met its only target"
    replica.submit(request("waits", prompt=4))
    slack = _digest(replica).least_slack
    assert slack is not None
    assert slack > 0.0
    replica.now += 10.0
    replica.step()
    late = _digest(replica).least_slack
    assert late is not None
    assert late < 0.0


def test_a_running_request_with_a_deadline_has_slack_to_its_end() -> None:
    replica = _warm(slots=1)
    replica.submit(request("a", prompt=4, max_tokens=40, deadline=5.0))
    for _ in range(4):
        replica.step()
    seconds = _digest(replica).step_seconds
    slack, spent = _digest(replica).least_slack, replica.now
    assert slack is not None
    begun = 5.0 - 9 * 4 * seconds
    assert begun - spent < slack < begun


def test_a_deadline_makes_a_request_due_sooner_never_later() -> None:
    replica = _warm(slots=1)
    replica.submit(request("runs", prompt=4, max_tokens=40))
    replica.step()
    names = {"plain": None, "roomy": 100.0, "tight": 0.2}
    for name, deadline in names.items():
        replica.submit(request(name, prompt=4, max_tokens=8, deadline=deadline))
    replica.drain()
    opened = [row.request_id for plan in replica.plans for row in plan.rows if row.canvas is not None]
    assert sorted(names, key=opened.index) == ["tight", "plain", "roomy"]


def test_the_error_of_predicted_step_times_is_reported() -> None:
    replica = _warm()
    assert _digest(replica).cost_error == replica.scheduler.cost.relative_error
    assert _digest(replica).cost_error < 0.01, "the fake's steps cost what the model says"


def test_the_list_of_requests_is_the_same_object_until_it_changes() -> None:
    replica = _warm()
    replica.submit(request("a", max_tokens=40))
    replica.step()
    first = _digest(replica).active
    replica.step()
    assert _digest(replica).active is first
    replica.submit(request("b"))
    assert _digest(replica).active == ("a", "b")


def test_a_digest_looks_at_nobody_who_waits() -> None:
    scheduler = LocalScheduler(shape(slots=1))
    for i in range(100):
        scheduler.submit(request(f"r{i}", prompt=4, max_tokens=4), float(i))
    digest = scheduler.digest("r", 0)
    assert (digest.waiting, digest.waiting_prefill_tokens, digest.blocks_left) == (100, 400, 100.0)
    assert digest.least_slack == pytest.approx(1.0 - 99.0, abs=0.01), "of the first, when the last came"
