"""Runs what is left of an answer's choices, for as long as this gateway is the one to do so."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from easel.cluster.errors import JournalUnavailable, StaleLease
from easel.cluster.gateway.answer_content import request_from_here
from easel.cluster.gateway.answer_log import AnswerLog
from easel.cluster.gateway.backend import AnswerStore, Backend
from easel.cluster.gateway.choice import CanvasDelta, Choice, close
from easel.cluster.gateway.errors import Interrupted
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.gateway.timelines import Timelines
from easel.cluster.journal_records import AnswerRecord, AnswerStatus
from easel.cluster.tasks import end_tasks
from easel.cluster.tracing import current_trace_id
from easel.scheduler.messages import BlockEvent


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """How gateways take turns at an answer, in seconds."""

    driver_seconds: float = 4.0  # silence of a gateway after which another one may go on
    poll_seconds: float = 0.06  # between two looks at the blocks that another gateway brings
    settle_seconds: float = 0.1  # from an answer's end to its last block in the journal, at first guess
    outage_seconds: float = 30.0  # a follower waits that long for a journal that is away
    stall_seconds: float = 30.0  # a client that takes nothing for that long is cut off


class Turn(Enum):
    """How a gateway's turn at an answer has ended."""

    FINISHED = "finished"
    LOST = "lost"  # another gateway has it
    CANCELLED = "cancelled"  # somebody asked for its end


@dataclass(frozen=True, slots=True)
class Drive:
    """One turn."""

    record: AnswerRecord
    created: float  # wall clock
    log: AnswerLog
    backend: Backend
    metrics: GatewayMetrics
    times: AnswerTimes
    wall: Callable[[], float]
    timelines: Timelines

    async def run(self, store: AnswerStore | None, *, claimed: bool) -> Turn:
        """Until the answer is finished, or this gateway's turn is over.

        What is not claimed yet is claimed while its requests run already; nothing is shown before.
        Raises what the backend raises.
        """
        record = self.record
        choices, trace_id = self.log.choices, current_trace_id()
        self.timelines.drive(record.answer_id, record.tenant, self.created, choices, trace_id)
        mine = asyncio.Event()
        tasks = [asyncio.create_task(self._pump_all(mine))]
        if store is None:
            mine.set()
        else:
            tasks.append(asyncio.create_task(self._keep(store, claimed, mine)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        except StaleLease:
            return Turn.LOST
        finally:
            await end_tasks(tasks)

    async def _pump_all(self, mine: asyncio.Event) -> Turn:
        unfinished = [choice for choice in self.log.choices if choice.finish is None]
        pumps = [asyncio.create_task(self._pump(choice, mine)) for choice in unfinished]
        try:
            await asyncio.gather(*pumps)
        finally:
            await end_tasks(pumps)
        return Turn.FINISHED

    async def _pump(self, choice: Choice, mine: asyncio.Event) -> None:
        watch = self.metrics.watch(resumed=bool(choice.events))
        request = request_from_here(choice, self.created, self.wall())
        stream = self.backend.stream(request, tuple(choice.events))
        try:
            async for event in stream:
                await mine.wait()
                if not isinstance(event, BlockEvent):
                    seconds = self.timelines.seconds(self.record.answer_id)
                    self.log.show(CanvasDelta(choice.index, event, seconds))
                    continue
                if event.block_index >= 0:
                    watch.block(event)
                    self.timelines.block(self.record.answer_id, choice, event)
                self.log.take(choice.index, event)
                if choice.finish is not None:
                    return
                await self.log.room(choice.index)
        finally:
            await close(stream)
        raise Interrupted(choice.request.request_id, "its stream ended before it was finished")

    async def _keep(self, store: AnswerStore, claimed: bool, mine: asyncio.Event) -> Turn:
        """Renews the claim until it is lost. While the journal is away the work goes on unprotected."""
        if claimed:
            mine.set()
            await asyncio.sleep(self.times.driver_seconds / 4)
        while True:
            with suppress(JournalUnavailable):
                renewed = store.renew(self.record.answer_id) if claimed else store.claim(self.record)
                if not await renewed:
                    return await self._why(store)
                claimed = True
            mine.set()
            await asyncio.sleep(self.times.driver_seconds / 4)

    async def _why(self, store: AnswerStore) -> Turn:
        stored = await store.read(self.record.answer_id)
        cancelled = stored is not None and stored.status is AnswerStatus.CANCELLED
        return Turn.CANCELLED if cancelled else Turn.LOST
