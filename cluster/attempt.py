"""One replica's part of a request's stream, and how it came to its end there."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from easel.cluster.errors import ReplicaLeft, ReplicaLost
from easel.cluster.progress import Progress
from easel.cluster.replica_losses import ReplicaLosses
from easel.scheduler.errors import Draining
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, GenerationTask, Placement
from easel.scheduler.request import FinishReason

LOGGER = logging.getLogger("easel.dispatch")

Event = BlockEvent | CanvasSnapshot


class Outcome(Enum):
    """What became of a request at one replica."""

    UNDER_WAY = "under way"
    FINISHED = "finished"
    HANDED_OVER = "handed over"  # the replica gave it back, whole blocks done
    REFUSED = "refused"  # the replica is about to go and takes nothing
    LOST = "lost"  # the replica died, hangs, or cannot be reached


class Replicas(Protocol):
    """All worker replicas, by id."""

    def generate(self, replica_id: str, task: GenerationTask) -> AsyncGenerator[Event, None]:
        """One request's events. Closing cancels it.

        Raises ReplicaLost, StaleLease, RequestTooLong, or Draining.
        """
        ...


@dataclass(slots=True)
class Attempt:
    """A request on its way through one replica. `run` may be used once."""

    placement: Placement
    progress: Progress
    outcome: Outcome = Outcome.UNDER_WAY
    traceparent: str = ""  # of the span that its part of the trace is below; "": not traced

    async def run(self, replicas: Replicas, losses: ReplicaLosses) -> AsyncGenerator[Event, None]:
        """What is new to the client; at the end, `outcome` says why there is no more from here."""
        replica_id, progress = self.placement.replica_id, self.progress
        task = GenerationTask(
            progress.request, self.placement.lease_epoch, tuple(progress.blocks), self.traceparent
        )
        events = losses.guard(replica_id, replicas.generate(replica_id, task))
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, BlockEvent) and event.finish is FinishReason.HANDED_OVER:
                        self.outcome = Outcome.HANDED_OVER
                        return
                    if progress.take(event):
                        yield event
                    if progress.finished:
                        self.outcome = Outcome.FINISHED
                        return
            raise ReplicaLost(replica_id, "its stream ended early")
        except (Draining, ReplicaLeft) as error:
            LOGGER.info("request %s goes elsewhere: %s", self.placement.request_id, error)
            self.outcome = Outcome.REFUSED
        except ReplicaLost as error:
            LOGGER.warning("request %s goes on elsewhere: %s", self.placement.request_id, error)
            self.outcome = Outcome.LOST


@dataclass(slots=True)
class Course:
    """Where a request has been, for its next placement."""

    progress: Progress
    clock: Callable[[], float]  # seconds, monotonic
    began: float
    avoided: frozenset[str] = frozenset()  # replicas that died under it, or were about to go
    placements: int = 0
    lease_epoch: int = 0  # of the last one
    failures: int = 0  # deaths in a row without a new block in between
    blocks: int = 0  # that were there when it was placed last

    @property
    def deadline_seconds(self) -> float | None:
        """What is left of the request's deadline; never less than a moment."""
        whole = self.progress.request.deadline_seconds
        return None if whole is None else max(1e-3, whole - (self.clock() - self.began))

    def placed(self, placement: Placement) -> None:
        """A replica was found."""
        self.placements += 1
        self.lease_epoch = placement.lease_epoch
        self.blocks = len(self.progress.blocks)

    def ended(self, attempt: Attempt) -> None:
        """Remember how it went at a replica."""
        if attempt.outcome is Outcome.LOST:
            progressed = len(self.progress.blocks) > self.blocks
            self.failures = 1 if progressed else self.failures + 1
        if attempt.outcome in (Outcome.LOST, Outcome.REFUSED):
            self.avoided |= {attempt.placement.replica_id}
