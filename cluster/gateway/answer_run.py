"""One answer in one gateway, which drives it, or follows the gateway that does until its turn comes."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from easel.cluster.errors import JournalUnavailable
from easel.cluster.gateway.answer_content import AnswerContent
from easel.cluster.gateway.answer_drive import AnswerTimes, Drive, Turn
from easel.cluster.gateway.answer_errors import AnswerCancelled, AnswerFailed, KeyReused
from easel.cluster.gateway.answer_log import AnswerLog, Reader
from easel.cluster.gateway.backend import AnswerStore, Backend
from easel.cluster.gateway.errors import ApiError, Interrupted
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.gateway.timelines import Timelines
from easel.cluster.journal_records import AnswerRecord, AnswerStatus, StoredAnswer
from easel.cluster.tasks import end_tasks
from easel.cluster.tracing import task_context

LOGGER = logging.getLogger("easel.gateway")
SETTLE_LOOKS = 5  # at the journal, each after twice the pause, for an answer's last blocks
RETRIES = 20  # of a background answer that the cluster could not take


@dataclass(frozen=True, slots=True)
class RunParts:
    """What all answers of one gateway share."""

    backend: Backend
    store: AnswerStore | None
    metrics: GatewayMetrics
    times: AnswerTimes
    wall: Callable[[], float]
    explain: Callable[[BaseException], ApiError]
    timelines: Timelines


class AnswerRun:
    """Begins to work when `start` is called; a foreground answer stops when its last reader leaves."""

    def __init__(self, record: AnswerRecord, content: AnswerContent, log: AnswerLog, parts: RunParts) -> None:
        self.record = record
        self.content = content
        self.log = log
        self._parts = parts
        self._drive = Drive(
            record,
            content.created,
            log,
            parts.backend,
            parts.metrics,
            parts.times,
            parts.wall,
            parts.timelines,
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether somebody may still join it."""
        return self.log.error is None

    def start(self, claimed: bool | None) -> asyncio.Task[None]:
        """Go to work at an answer that is ours, or, if `claimed` is None, perhaps another gateway's.

        One that is not claimed yet is new, and is claimed while it already runs.
        """
        context = task_context(self.content.traceparent, self.record.answer_id)
        self._task = asyncio.create_task(self._work(claimed), context=context)
        return self._task

    def read(self, seen: tuple[int, ...] = (), *, canvases: bool = False) -> Reader:
        """Deltas after those seen."""
        return Reader(self.log, self._left, seen, canvases)

    async def over(self) -> None:
        """Waits until nothing of it runs any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def cancel(self) -> None:
        """End it because somebody asked for that; the journal has been told."""
        self._cancelled()
        await self._stop()

    async def _left(self, reader: Reader) -> None:
        if not (self.log.readers or self.record.background or self.log.ended):
            self.log.fail(Interrupted(self.record.answer_id, "its client has gone"))
            self._parts.metrics.cancelled.inc()
            self._parts.timelines.cancelled(self.record.answer_id, "its client has gone")
            await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            await end_tasks([self._task])

    async def _work(self, claimed: bool | None) -> None:
        store = self._parts.store
        try:
            if store is None:
                await self._take_turn(None, claimed=True)
            else:
                await self._go_on(store, claimed)
        except Exception as error:  # noqa: BLE001 the readers raise it; who answers the client explains it
            await self._give_up(error)
        finally:
            if store is not None:
                # Nothing happens unless it is still ours.
                with suppress(JournalUnavailable):
                    await store.release(self.record.answer_id)

    async def _go_on(self, store: AnswerStore, claimed: bool | None) -> None:
        while claimed is not None or await self._follow(store):
            turn = await self._take_turn(store, claimed=claimed is not False)
            claimed = None
            if turn is Turn.CANCELLED:
                self._cancelled()
                await self._conclude(store, AnswerStatus.CANCELLED)
                return
            if turn is Turn.FINISHED:
                await self._settle(store)
                return
            await asyncio.sleep(self._parts.times.poll_seconds)

    async def _take_turn(self, store: AnswerStore | None, *, claimed: bool) -> Turn:
        retries = 0
        with self._parts.metrics.in_flight.track_inprogress():
            while True:
                try:
                    turn = await self._drive.run(store, claimed=claimed)
                    self._note(turn)
                    return turn
                except Exception as error:  # a background answer tries again; else the route explains it
                    reply = self._parts.explain(error)
                    retries += 1
                    if not self.record.background or reply.status not in (429, 503) or retries > RETRIES:
                        raise
                    claimed = False  # the pause may be longer than the claim lives
                    await asyncio.sleep(reply.retry_after_seconds or self._parts.times.driver_seconds)

    async def _follow(self, store: AnswerStore) -> bool:
        """Takes in what another gateway brings until it is our turn; False when the answer has ended."""
        if await self._claim(store):
            return True
        while not self.log.ended and (self.log.readers or not self.record.background):
            stored = await self._look(store)
            if self.log.ended:
                return False
            if (stored is None or not stored.driver) and await self._claim(store):
                return True
            await asyncio.sleep(self._parts.times.poll_seconds)
        return False

    async def _claim(self, store: AnswerStore) -> bool:
        with suppress(JournalUnavailable):
            if await store.claim(self.record):
                await self._look(store)
                return True
        return False

    async def _look(self, store: AnswerStore) -> StoredAnswer | None:
        """The journal's newest. Raises JournalUnavailable when it stays away, or what ended the answer."""
        stored = await self._read(store)
        if stored is None:
            return None
        if stored.record.fingerprint != self.record.fingerprint:
            raise KeyReused
        self.log.take_journaled(stored.requests)
        if self.log.finished:
            return stored
        match stored.status:
            case AnswerStatus.CANCELLED:
                self.log.fail(AnswerCancelled(self.record.answer_id))
            case AnswerStatus.FAILED:
                self.log.fail(AnswerFailed(self.record.answer_id, stored.detail))
            case AnswerStatus.COMPLETED:
                self.log.fail(Interrupted(self.record.answer_id, "the journal has lost its last blocks"))
            case AnswerStatus.IN_PROGRESS:
                pass
        return stored

    async def _read(self, store: AnswerStore) -> StoredAnswer | None:
        times = self._parts.times
        waited = 0.0
        while True:
            try:
                return await store.read(self.record.answer_id)
            except JournalUnavailable:
                if waited >= times.outage_seconds:
                    raise
            waited += times.poll_seconds
            await asyncio.sleep(times.poll_seconds)

    async def _settle(self, store: AnswerStore) -> None:
        """Concludes the answer once its last blocks, which are written behind, can be read by all.

        If they do not come it stays unfinished, so that whoever asks for them computes them again.
        """
        pause = self._parts.times.settle_seconds
        with suppress(JournalUnavailable):
            for _ in range(SETTLE_LOOKS):
                await asyncio.sleep(pause)
                if self._is_kept(await store.read(self.record.answer_id)):
                    await self._conclude(store, AnswerStatus.COMPLETED)
                    return
                pause *= 2

    def _is_kept(self, stored: StoredAnswer | None) -> bool:
        if stored is None:
            return False
        pairs = zip(self.log.choices, stored.requests, strict=True)
        return all(kept is not None and len(kept.blocks) >= len(choice.events) for choice, kept in pairs)

    async def _give_up(self, error: Exception) -> None:
        """A foreground answer is left to whoever asks for it again; a background one has failed."""
        self.log.fail(error)
        self._parts.metrics.refuse(error)
        self._parts.timelines.failed(self.record.answer_id, error)
        store = self._parts.store
        if store is not None and self.record.background:
            reply = self._parts.explain(error)
            LOGGER.warning("the background answer %s failed: %s", self.record.answer_id, reply.message)
            await self._conclude(store, AnswerStatus.FAILED, reply.message)

    def _cancelled(self) -> None:
        self.log.fail(AnswerCancelled(self.record.answer_id))
        self._parts.timelines.cancelled(self.record.answer_id, "somebody asked for its end")

    def _note(self, turn: Turn) -> None:
        if turn is Turn.FINISHED:
            self._parts.timelines.finished(self.record.answer_id, self.log.choices)
        elif turn is Turn.LOST:
            self._parts.timelines.leave(self.record.answer_id)

    async def _conclude(self, store: AnswerStore, status: AnswerStatus, detail: str = "") -> None:
        with suppress(JournalUnavailable):
            await store.conclude(self.record.answer_id, status, detail)
