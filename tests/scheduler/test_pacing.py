"""Pacing: how much refresh work a replica is told to mix into its steps."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.messages import CostCoefficients, PhasePolicy, ReplicaDigest
from easel.scheduler.pacing import MOST_REFRESH_TOKENS, pace
from tests.fakes import FakeReplica, digest, request, shape


def _pace(digest: ReplicaDigest, target_seconds: float = 0.05) -> PhasePolicy:
    return pace(digest, target_seconds=target_seconds, time_to_live=5.0, epoch=7)


def test_newcomers_open_at_the_rate_at_which_blocks_finish() -> None:
    told = replace(digest("a"), slots=64, steps_per_block=8.0)
    assert _pace(told).opens_per_step == 8
    assert _pace(replace(told, steps_per_block=64.0)).opens_per_step == 1
    assert _pace(replace(told, steps_per_block=1.0)).opens_per_step == 64


def test_a_dearer_token_means_a_smaller_refresh_quota() -> None:
    cheap, dear = (
        replace(digest("a"), cost=CostCoefficients(1e-3, per_token, 0.0, 0.0)) for per_token in (1e-5, 1e-4)
    )
    assert _pace(cheap).refresh_tokens > _pace(dear).refresh_tokens


def test_prefill_that_waits_may_use_what_missing_canvases_leave() -> None:
    costly = replace(digest("a"), slots=64, cost=CostCoefficients(1e-3, 1e-4, 0.0, 1e-5))
    few = replace(costly, slots_used=8, waiting_prefill_tokens=4000)
    many = replace(costly, slots_used=60, waiting_prefill_tokens=4000)
    assert _pace(few).refresh_tokens > _pace(many).refresh_tokens > _pace(costly).refresh_tokens
    assert _pace(few).target_seconds == _pace(costly).target_seconds


def test_canvases_slower_than_the_target_still_leave_room_for_newcomers() -> None:
    slow = replace(digest("a"), cost=CostCoefficients(0.1, 1e-3, 0.0, 0.0))
    policy = _pace(slow, target_seconds=0.01)
    assert policy.target_seconds > 0.1
    assert policy.refresh_tokens >= slow.block_length


def test_a_replica_without_a_history_gets_a_sensible_policy() -> None:
    policy = _pace(replace(digest("a"), steps_per_block=0.0))
    assert policy.opens_per_step >= 1
    assert (policy.epoch, policy.time_to_live) == (7, 5.0)


@given(
    st.floats(0.0, 1.0),
    st.floats(0.0, 1e-2),
    st.floats(0.0, 1e-2),
    st.floats(0.0, 100.0),
    st.integers(1, 256),
)
def test_every_policy_lets_some_refresh_through(
    constant: float, per_token: float, per_head_row: float, steps: float, slots: int
) -> None:
    cost = CostCoefficients(constant, per_token, 1e-9, per_head_row)
    told = replace(digest("a"), cost=cost, steps_per_block=steps, slots=slots)
    policy = _pace(told)
    assert told.block_length <= policy.refresh_tokens <= MOST_REFRESH_TOKENS
    assert 1 <= policy.opens_per_step <= slots
    assert policy.target_seconds >= 0.05


def test_paced_replicas_do_not_march_in_step() -> None:
    """Without pacing a burst opens at once and, with equal blocks, commits at once ever after."""

    def most_refresh(policy: PhasePolicy) -> int:
        replica = FakeReplica(shape(slots=8, pages=400), policy=policy, min_steps=8, max_steps=8)
        for i in range(8):
            replica.submit(request(f"r{i}", prompt=4, max_tokens=80))
        plans = replica.drain()
        return max(sum(not row.kind.writes_pages and row.canvas is not None for row in p.rows) for p in plans)

    told = replace(digest("a"), slots=8, steps_per_block=8.0)
    assert most_refresh(PhasePolicy(opens_per_step=8)) == 8
    assert most_refresh(_pace(told)) == 1
