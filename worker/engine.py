"""The step loop of one replica: plan, run, apply."""

from collections.abc import Callable
from dataclasses import dataclass, field

from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import (
    BlockEvent,
    CanvasSnapshot,
    PhasePolicy,
    ReplicaDigest,
    ReplicaShape,
    StepSample,
)
from easel.scheduler.request import FinishReason, Request
from easel.worker.host_loop import never
from easel.worker.model_info import ModelInfo
from easel.worker.runner import Runner

QUANTUM_SECONDS = 0.05  # after which a plan is not repeated, so that digests stay fresh


@dataclass(slots=True)
class Engine:
    """One model on one device. Not thread-safe: whoever steps it also submits and cancels."""

    model: ModelInfo
    shape: ReplicaShape
    scheduler: LocalScheduler
    runner: Runner
    clock: Callable[[], float]  # seconds, monotonic
    _endings: list[BlockEvent] = field(default_factory=list[BlockEvent])  # to come out with the next step

    @property
    def has_work(self) -> bool:
        return bool(self._endings) or self.scheduler.has_work

    def submit(self, request: Request) -> None:
        """Queue a request. Raises RequestTooLong, Draining, or InvalidParameter for an id that is running."""
        self.scheduler.submit(request, self.clock())

    def cancel(self, request_id: str) -> None:
        """Free the request's slot and pages now; its last event comes with the next step.

        Raises UnknownRequest when it is not here, or has finished.
        """
        self.scheduler.cancel(request_id)
        self._endings.append(_cancellation(request_id))

    def hand_over(self, request_id: str) -> None:
        """Give a request back: one without a canvas with the next step, a running one at its block's end.

        Its last event says HANDED_OVER. Raises UnknownRequest when it is not here, or has finished.
        """
        self._endings.extend(self.scheduler.hand_over(request_id))

    def drain(self) -> None:
        """Give all requests back, as `hand_over` does, and take no more."""
        self._endings.extend(self.scheduler.drain())

    def set_policy(self, policy: PhasePolicy) -> None:
        self.scheduler.set_policy(policy, self.clock())

    def step(self, interrupted: Callable[[], bool] = never) -> list[BlockEvent | CanvasSnapshot]:
        """One plan, if there is work: one forward, or a few where nothing else is to be done.

        Once `interrupted` is true no further forward begins. Snapshots come before the blocks they
        led to.
        """
        events: list[BlockEvent | CanvasSnapshot] = [*self._endings]
        self._endings.clear()
        plan = self.scheduler.plan(self.clock())
        if plan is None:
            return events
        until = self.clock() + QUANTUM_SECONDS
        result = self.runner.run(plan, lambda: interrupted() or self.clock() >= until)
        events.extend(result.snapshots)
        events.extend(self.scheduler.apply(plan, result, self.clock()))
        return events

    def digest(self, replica_id: str, sequence: int) -> ReplicaDigest:
        return self.scheduler.digest(replica_id, sequence)

    def take_recent_steps(self) -> tuple[StepSample, ...]:
        """Some of the steps since the last call; another thread than the stepping one may ask."""
        return self.scheduler.recent.take()

    def check(self) -> None:
        """Raises BrokenBooks when slots or pages do not balance."""
        self.scheduler.check()


def _cancellation(request_id: str) -> BlockEvent:
    return BlockEvent(
        request_id=request_id,
        block_index=-1,
        tokens=(),
        steps=0,
        mean_entropy=0.0,
        seconds=0.0,
        finish=FinishReason.CANCELLED,
    )
