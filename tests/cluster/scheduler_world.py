"""A scheduler actor without Ray, and what it is told."""

import asyncio
from dataclasses import dataclass, field

from easel.cluster.journal import JournalSettings
from easel.cluster.scheduler_actor import SchedulerActor
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterLimits
from easel.scheduler.messages import CostCoefficients, ReplicaDigest

NOWHERE = JournalSettings("unix:///nowhere/valkey.sock")


def a_digest(replica_id: str, sequence: int, active: tuple[str, ...] = (), slots: int = 1) -> ReplicaDigest:
    return ReplicaDigest(
        replica_id=replica_id,
        sequence=sequence,
        slots=slots,
        slots_used=len(active),
        pages=64,
        pages_available=64,
        page_size=4,
        block_length=4,
        waiting=0,
        waiting_prefill_tokens=0,
        active=active,
        steps_per_block=4.0,
        step_seconds=0.01,
        cost=CostCoefficients(0.001, 1e-5, 1e-8, 1e-5),
        refresh_tokens=0,
        reuse_tokens=0,
        steps=0,
        blocks=0,
        committed_tokens=0,
        policy_epoch=0,
    )


def a_ticket(request_id: str, excluded: frozenset[str] = frozenset()) -> AdmissionTicket:
    return AdmissionTicket(request_id, prompt_tokens=4, max_tokens=8, excluded=excluded)


@dataclass(slots=True)
class World:
    """An actor under a clock that stands still, with room for one request a replica."""

    journal: JournalSettings = NOWHERE
    now: float = 100.0
    wall: float = 50.0
    no_replica_seconds: float = 30.0
    stopping: bool = False
    actor: SchedulerActor = field(init=False)

    def __post_init__(self) -> None:
        limits = ClusterLimits(max_waiting=2, queue_ahead=0, digest_timeout_seconds=3.0)
        self.actor = SchedulerActor(
            limits,
            self.journal,
            self.no_replica_seconds,
            clock=lambda: self.now,
            wall=lambda: self.wall,
            is_stopping=self.is_stopping,
        )

    async def is_stopping(self) -> bool:
        return self.stopping


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
