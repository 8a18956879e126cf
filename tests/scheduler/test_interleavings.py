"""Whatever order things happen in, nothing leaks, nothing waits for ever, outputs are the same."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import BatchPlan, BlockEvent, PhasePolicy, ReplicaShape, Tightening
from easel.scheduler.request import DiffusionParams, FinishReason, Priority, Request, SamplingParams
from tests.fakes import FakeReplica, bidirectional_shape, shape, windowed_shape

SHAPES: dict[str, Callable[[int, int], ReplicaShape]] = {
    "block causal": shape,
    "partial": lambda slots, pages: replace(shape(slots, pages), partial=True),
    "windowed": windowed_shape,
    "windowed, two writes": lambda slots, pages: windowed_shape(slots, pages, writes=2),
    "windowed, one commit": lambda slots, pages: replace(windowed_shape(slots, pages), commit_limit=1),
    "bidirectional": bidirectional_shape,
}
SHARED = tuple(range(20, 84))  # prompts are cut from here, so that many share pages
EOS_SHARE = 0.15


class Interleavings(RuleBasedStateMachine):
    """Requests come, run, are cancelled or handed over between any two moments, and end, on too few pages.

    Requests of three classes, some with deadlines, take each other's slots; the load valve opens and
    closes; and what is handed over goes on at another replica.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shape = shape()
        self.policy = PhasePolicy()
        self.replica = FakeReplica(self.shape)
        self.pending: BatchPlan | None = None
        self.cancelled: set[str] = set()
        self.epoch = 0
        self.requests: dict[str, Request] = {}

    @initialize(
        kind=st.sampled_from(sorted(SHAPES)),
        compose=st.sampled_from([*ComposePolicy, *[ComposePolicy.BALANCED] * 3]),
        fused=st.booleans(),
        slots=st.integers(1, 4),
        pages=st.integers(12, 30),
        seconds=st.sampled_from([0.0, 0.0012, 0.05]),
        refresh=st.sampled_from([4, 24, 512]),
    )
    def start(
        self,
        kind: str,
        compose: ComposePolicy,
        fused: bool,
        slots: int,
        pages: int,
        seconds: float,
        refresh: int,
    ) -> None:
        policy = self.policy = PhasePolicy(
            target_seconds=seconds,
            refresh_tokens=refresh,
            opens_per_step=2,
            fuse_commits=fused,
            time_to_live=1e9,
        )
        self.shape = SHAPES[kind](slots, pages)
        self.replica = FakeReplica(self.shape, compose, policy, eos_share=EOS_SHARE)

    @rule(
        prompt=st.integers(1, 64),
        own=st.integers(0, 3),
        max_tokens=st.integers(1, 24),
        tenant=st.sampled_from(["", "other"]),
        priority=st.sampled_from(Priority),
        rebuild_every=st.sampled_from([0, 1, 2]),
        deadline=st.sampled_from([None, 0.001, 0.02, 1.0]),
    )
    def submit(
        self,
        prompt: int,
        own: int,
        max_tokens: int,
        tenant: str,
        priority: Priority,
        rebuild_every: int,
        deadline: float | None,
    ) -> None:
        name = f"r{len(self.requests)}"
        tokens = (*SHARED[:prompt], *([100 + own] * own))
        diffusion = DiffusionParams(rebuild_every=rebuild_every if self.shape.partial else 0)
        request = Request(
            name,
            tokens,
            SamplingParams(max_tokens),
            diffusion,
            tenant=tenant,
            priority=priority,
            deadline_seconds=deadline,
        )
        self.replica.submit(request)
        self.requests[name] = request

    @precondition(lambda self: self.pending is None)
    @rule()
    def plan(self) -> None:
        self.pending = self.replica.scheduler.plan(self.replica.now)
        assert (self.pending is not None) == self.replica.scheduler.has_work

    @precondition(lambda self: self.pending is not None)
    @rule()
    def apply(self) -> None:
        assert self.pending is not None
        self.replica.finish(self.pending)
        self.pending = None

    @precondition(lambda self: self.pending is not None)
    @rule()
    def forget_the_plan(self) -> None:
        self.pending = None

    @precondition(lambda self: self.pending is None)
    @rule(steps=st.integers(1, 12))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.replica.step()

    @precondition(lambda self: self.replica.scheduler.has_work)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        active = self.replica.scheduler.digest("r", 0).active
        name = data.draw(st.sampled_from(active))
        self.replica.scheduler.cancel(name)
        self.cancelled.add(name)

    @precondition(lambda self: self.replica.scheduler.has_work)
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        active = self.replica.scheduler.digest("r", 0).active
        self.replica.hand_over(data.draw(st.sampled_from(active)))

    @rule(steps=st.sampled_from([None, 1, 2]))
    def turn_the_valve(self, steps: int | None) -> None:
        self.epoch += 1
        valve = None if steps is None else Tightening(most_steps=steps)
        policy = replace(self.policy, epoch=self.epoch, tightening=valve)
        self.replica.scheduler.set_policy(policy, self.replica.now)

    @invariant()
    def books_balance(self) -> None:
        self.replica.scheduler.check()

    def teardown(self) -> None:
        if self.pending is not None:
            self.replica.finish(self.pending)
        self.replica.drain()
        digest = self.replica.scheduler.digest("r", 0)
        assert (digest.slots_used, digest.waiting, digest.active) == (0, 0, ())
        assert digest.pages_available == digest.pages
        for name, request in self.requests.items():
            if name not in self.cancelled:
                self._check_output(name, request)

    def _check_output(self, name: str, request: Request) -> None:
        alone = FakeReplica(replace(self.shape, pages=64), eos_share=EOS_SHARE)
        alone.submit(request)
        alone.drain()
        events = self.replica.events[name]
        assert [event.finish is not None for event in events] == [False] * (len(events) - 1) + [True]
        if events[-1].finish is FinishReason.HANDED_OVER:
            assert (events[-1].block_index, events[-1].tokens) == (-1, ())
            events = events[:-1] + self._elsewhere(request)
        assert [(e.block_index, e.tokens, e.finish) for e in events] == [
            (e.block_index, e.tokens, e.finish) for e in alone.events[name]
        ]

    def _elsewhere(self, request: Request) -> list[BlockEvent]:
        """How a request that was handed over goes on at another replica."""
        other = FakeReplica(replace(self.shape, pages=64), eos_share=EOS_SHARE)
        other.submit(replace(request, committed=self.replica.output(request.request_id)))
        other.drain()
        return other.events[request.request_id]


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("policy", ComposePolicy)
def test_heavy_churn_on_few_pages_leaves_nothing_behind(policy: ComposePolicy) -> None:
    replica = FakeReplica(shape(slots=3, pages=14), policy, eos_share=0.2)
    for i in range(80):
        replica.submit(Request(f"r{i}", SHARED[: 1 + (i * 7) % 60], SamplingParams(1 + i % 17)))
        replica.step()
        if i % 5 == 4:
            replica.scheduler.cancel(replica.scheduler.digest("r", 0).active[-1])
    replica.drain()
    assert replica.scheduler.digest("r", 0).pages_available == 14
