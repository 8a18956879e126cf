"""All answers that this gateway drives or follows, and the search for those that nobody drives."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from easel.cluster.errors import JournalUnavailable
from easel.cluster.gateway.answer_content import AnswerContent
from easel.cluster.gateway.answer_errors import TooManyAnswers
from easel.cluster.gateway.answer_log import AnswerLog
from easel.cluster.gateway.answer_run import AnswerRun, RunParts
from easel.cluster.gateway.backend import AnswerStore
from easel.cluster.gateway.choice import Choice
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.cluster.journal_records import AnswerRecord, AnswerStatus, StoredAnswer
from easel.cluster.tasks import end_tasks
from easel.cluster.tracing import current_trace_id

LOGGER = logging.getLogger("easel.gateway")
MAX_BACKGROUND = 256  # background answers in one gateway
RETRY_AFTER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An answer as it is now."""

    record: AnswerRecord
    content: AnswerContent
    choices: list[Choice]
    status: AnswerStatus
    driven: bool  # somebody works at it
    detail: str = ""  # why it failed


class Answers:
    """Belongs to one event loop."""

    def __init__(self, parts: RunParts, tokenizer: ChatTokenizer, stream_buffer: int) -> None:
        self.parts = parts
        self._tokenizer = tokenizer
        self._stream_buffer = stream_buffer
        self._runs: dict[str, AnswerRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping = False

    @property
    def resumable(self) -> bool:
        """Whether answers are kept, so that clients may come back to them."""
        return self.parts.store is not None

    def start(self) -> None:
        """Look after orphans from now on; to be called within the event loop, any number of times."""
        if self.resumable and not self._sweeping:
            self._sweeping = True
            self._hold(asyncio.create_task(self._sweep()))

    async def stop(self) -> None:
        """Leave everything to other gateways, at once; to be called when no client is connected any more."""
        await end_tasks(self._tasks)

    async def begin(self, record: AnswerRecord, content: AnswerContent) -> AnswerRun:
        """Work at an answer that is new, in the background only once it is kept.

        To be read at once. Raises TooManyAnswers, or JournalUnavailable for a background answer.
        """
        self.start()
        claimed: bool | None = False
        if record.background and self.parts.store is not None:
            if self._background >= MAX_BACKGROUND:
                raise TooManyAnswers(MAX_BACKGROUND, RETRY_AFTER_SECONDS)
            claimed = await _claimed(self.parts.store, record) or None
        self.parts.timelines.begin(record.answer_id, record.tenant, content.created, current_trace_id())
        self.parts.metrics.prompt_tokens.inc(sum(len(request.prompt) for request in content.requests))
        return self._run(record, content, claimed)

    async def join(self, answer_id: str, check: Callable[[AnswerRecord], None]) -> AnswerRun | None:
        """The answer's run here, taken up from the journal if need be; None when nobody knows it.

        To be read at once. Raises what `check` raises before anything is begun, and JournalUnavailable.
        """
        self.start()
        run, stored = await self._local(answer_id), None
        if run is None and self.parts.store is not None:
            stored = await self.parts.store.read(answer_id)
            # Somebody else here may have taken it up meanwhile.
            run = await self._local(answer_id)
        if run is not None:
            check(run.record)
            return run
        if stored is not None:
            check(stored.record)
            return self._take_up(stored)
        return None

    async def snapshot(self, answer_id: str) -> Snapshot | None:
        """The answer as it is, without working at it. Raises JournalUnavailable."""
        self.start()
        run = self._runs.get(answer_id)
        if run is not None and run.usable:
            status = AnswerStatus.COMPLETED if run.log.finished else AnswerStatus.IN_PROGRESS
            return Snapshot(run.record, run.content, run.log.choices, status, driven=True)
        stored = await self.parts.store.read(answer_id) if self.parts.store is not None else None
        if stored is None:
            return None
        content, log = self._replayed(stored)
        # The last blocks say more than the status, which is written after them.
        status = AnswerStatus.COMPLETED if log.finished else stored.status
        return Snapshot(stored.record, content, log.choices, status, bool(stored.driver), stored.detail)

    async def cancel(self, answer_id: str) -> None:
        """End a background answer, wherever it is driven. Raises JournalUnavailable."""
        if self.parts.store is not None and await self.parts.store.cancel(answer_id):
            run = self._runs.get(answer_id)
            if run is not None:
                await run.cancel()

    async def _local(self, answer_id: str) -> AnswerRun | None:
        """The run that is here, after waiting for one that is about to end without its answer."""
        while (run := self._runs.get(answer_id)) is not None and not run.usable:
            await run.over()
            self._forget(run)
        return run

    def _take_up(self, stored: StoredAnswer) -> AnswerRun:
        content = AnswerContent.from_json(stored.record.content)
        run = self._run(stored.record, content, None)
        run.log.take_journaled(stored.requests)
        return run

    def _replayed(self, stored: StoredAnswer) -> tuple[AnswerContent, AnswerLog]:
        content = AnswerContent.from_json(stored.record.content)
        log = AnswerLog(content.choices(self._tokenizer), None)
        log.take_journaled(stored.requests)
        return content, log

    def _run(self, record: AnswerRecord, content: AnswerContent, claimed: bool | None) -> AnswerRun:
        buffer = None if record.background else self._stream_buffer
        run = AnswerRun(record, content, AnswerLog(content.choices(self._tokenizer), buffer), self.parts)
        self._runs[record.answer_id] = run
        task = run.start(claimed)
        self._hold(task)
        task.add_done_callback(lambda _: self._forget(run))
        return run

    def _forget(self, run: AnswerRun) -> None:
        if self._runs.get(run.record.answer_id) is run:
            del self._runs[run.record.answer_id]

    @property
    def _background(self) -> int:
        return sum(run.record.background for run in self._runs.values())

    async def _sweep(self) -> None:
        """Takes up background answers whose gateway has gone."""
        while True:
            await asyncio.sleep(self.parts.times.driver_seconds)
            try:
                await self._adopt_orphans()
            except JournalUnavailable as error:
                LOGGER.info("no search for orphans: %s", error)

    async def _adopt_orphans(self) -> None:
        store = self.parts.store
        if store is None:
            return
        for answer_id in await store.orphans():
            if self._background >= MAX_BACKGROUND:
                return
            if answer_id not in self._runs:
                await self.join(answer_id, _anybody)

    def _hold(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._end_of_task)

    def _end_of_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOGGER.error("an answer's work ended unexpectedly", exc_info=error)


async def _claimed(store: AnswerStore, record: AnswerRecord) -> bool:
    try:
        return await store.claim(record)
    except JournalUnavailable:
        with suppress(JournalUnavailable):  # nobody will go on with it
            await store.release(record.answer_id)
        raise


def _anybody(record: AnswerRecord) -> None:
    """An orphan is driven whoever asked for it."""
