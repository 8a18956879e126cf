"""A cluster without processes: what a gateway's dispatch talks to."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from easel.cluster.errors import JournalUnavailable, ReplicaLeft, ReplicaLost
from easel.cluster.journal_records import CommittedBlock, JournaledRequest, Record, Written, without_gaps
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.errors import Draining
from easel.scheduler.messages import BlockEvent, GenerationTask, Placement
from easel.scheduler.request import FinishReason, Request, SamplingParams

BLOCK = 4


def a_request(request_id: str = "r", blocks: int = 3) -> Request:
    return Request(request_id, (7,) * BLOCK, SamplingParams(max_tokens=blocks * BLOCK))


def a_block(index: int, *, request_id: str = "r", last: bool = False) -> BlockEvent:
    """The block every healthy replica computes: its tokens follow from its index alone."""
    tokens = tuple(range(index * BLOCK, (index + 1) * BLOCK))
    finish = FinishReason.LENGTH if last else None
    return BlockEvent(request_id, index, tokens, steps=2, mean_entropy=0.1, seconds=0.01, finish=finish)


@dataclass(slots=True)
class FakeScheduler:
    """Places requests on the first replica that is not excluded."""

    replicas: list[str]
    tickets: list[AdmissionTicket] = field(default_factory=list[AdmissionTicket])
    ended: list[str] = field(default_factory=list[str])
    output_tokens: dict[str, int] = field(default_factory=dict[str, int])
    reported: list[str] = field(default_factory=list[str])
    leaving: list[str] = field(default_factory=list[str])
    lost: asyncio.Queue[str] = field(default_factory=asyncio.Queue[str])

    async def place(self, ticket: AdmissionTicket) -> Placement:
        self.tickets.append(ticket)
        free = [replica_id for replica_id in self.replicas if replica_id not in ticket.excluded]
        return Placement(ticket.request_id, free[0], lease_epoch=len(self.tickets))

    async def end(self, request_id: str, output_tokens: int) -> None:
        self.ended.append(request_id)
        self.output_tokens[request_id] = output_tokens

    async def report_lost(self, replica_id: str) -> None:
        self.reported.append(replica_id)

    async def report_leaving(self, replica_id: str) -> None:
        self.leaving.append(replica_id)

    async def losses(self, known: int) -> tuple[int, list[str]]:
        return known + 1, [await self.lost.get()]

    async def status(self) -> dict[str, object]:
        return {"replicas": self.replicas, "journal": "ok"}


@dataclass(slots=True)
class FakeJournal:
    """A journal in memory that can be away."""

    away: bool = False
    records: list[Record] = field(default_factory=list[Record])
    exchanges: int = 0
    stale: Callable[[Record], bool] = lambda _: False
    forgotten: Callable[[Record], bool] = lambda _: False

    async def write(self, records: list[Record]) -> Written:
        self.exchanges += 1
        self._require()
        self.records.extend(record for record in records if not self.stale(record))
        return Written(tuple(filter(self.stale, records)), tuple(filter(self.forgotten, records)))

    async def read(self, request_id: str) -> JournaledRequest | None:
        self._require()
        blocks = {
            record.event.block_index: record.event
            for record in self.records
            if isinstance(record, CommittedBlock) and record.request_id == request_id
        }
        return JournaledRequest(None, without_gaps(blocks), None, "", 0) if blocks else None

    def _require(self) -> None:
        if self.away:
            raise JournalUnavailable("fake://", "away")


@dataclass(slots=True)
class FakeReplicas:
    """Replicas that compute a request's blocks, and die or hang after so many."""

    journal: FakeJournal
    blocks: int = 3
    dies_after: dict[str, int] = field(default_factory=dict[str, int])  # replica id -> blocks computed
    unseen: dict[str, int] = field(default_factory=dict[str, int])  # of these, journaled but never sent
    hangs_after: dict[str, int] = field(default_factory=dict[str, int])
    hands_over_once: dict[str, int] = field(default_factory=dict[str, int])
    draining: set[str] = field(default_factory=set[str])
    gone: set[str] = field(default_factory=set[str])
    skips: dict[str, int] = field(default_factory=dict[str, int])  # blocks left out at the start
    tasks: list[GenerationTask] = field(default_factory=list[GenerationTask])
    closed: list[str] = field(default_factory=list[str])

    async def generate(self, replica_id: str, task: GenerationTask) -> AsyncGenerator[BlockEvent, None]:
        self.tasks.append(task)
        first = len(task.request.committed) // BLOCK
        end = first + self.dies_after.get(replica_id, self.blocks)
        hands_over = self.hands_over_once.pop(replica_id, self.blocks)
        if replica_id in self.draining:
            raise Draining(replica_id)
        if replica_id in self.gone:
            raise ReplicaLeft(replica_id, "it was stopped")
        try:
            for index in range(first + self.skips.get(replica_id, 0), self.blocks):
                if index - first == self.hangs_after.get(replica_id, self.blocks):
                    await asyncio.Event().wait()
                if index - first == hands_over:
                    yield BlockEvent(task.request.request_id, -1, (), 0, 0.0, 0.0, FinishReason.HANDED_OVER)
                    return
                if index >= end:
                    raise ReplicaLost(replica_id, "it died")
                last = index == self.blocks - 1
                block = a_block(index, request_id=task.request.request_id, last=last)
                self.journal.records.append(CommittedBlock(block, task.lease_epoch))
                if index < end - self.unseen.get(replica_id, 0):
                    yield block
            if end <= self.blocks and self.unseen.get(replica_id, 0):
                raise ReplicaLost(replica_id, "it died")
        finally:
            self.closed.append(replica_id)
