"""Answers in the journal: which gateway drives one, how far it is, and which of them nobody drives.

A gateway keeps the records it drives in memory, so that a journal that forgets them, restarted
without its data, is told again at the next renewal. What is lost then is that an answer was
cancelled or had ended.
"""

from dataclasses import dataclass

from easel.cluster import answer_scripts
from easel.cluster.errors import JournalUnavailable
from easel.cluster.journal import Journal, pairs
from easel.cluster.journal_records import AnswerRecord, AnswerStatus, StoredAnswer, decode_answer, encode
from easel.cluster.journal_scripts import Call, Script
from easel.cluster.journal_settings import ms

_ORPHANS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class _Driven:
    """An answer this gateway drives."""

    record: AnswerRecord
    turn: int  # 0: the journal was away when it was claimed


class JournaledAnswers:
    """Implements the gateway's AnswerStore. `gateway_id` must be another one after a restart."""

    def __init__(self, journal: Journal, gateway_id: str, driver_seconds: float) -> None:
        self._journal = journal
        self._gateway_id = gateway_id
        self._driver_ms = ms(driver_seconds)
        self._active_ms = ms(journal.settings.active_seconds)
        self._terminal_ms = ms(journal.settings.terminal_seconds)
        self._driven: dict[str, _Driven] = {}

    async def claim(self, record: AnswerRecord) -> bool:
        """Make this gateway the answer's driver; true also if it is already.

        False when another one drives it, it has ended, or its record has another fingerprint.
        When this raises JournalUnavailable and the gateway goes on all the same, it may renew,
        which claims; if it does not go on, it should release.
        """
        earlier = self._driven.get(record.answer_id)
        if earlier is not None and earlier.record.fingerprint != record.fingerprint:
            return False
        call = self._call(answer_scripts.CLAIM, _Driven(record, turn=0), self._active_ms)
        try:
            turn = int((await self._journal.exchange([*self._indexed(record), call]))[-1])
        except JournalUnavailable:
            self._driven.setdefault(record.answer_id, _Driven(record, turn=0))
            raise
        if turn == 0:
            self._driven.pop(record.answer_id, None)
            return False
        self._driven[record.answer_id] = _Driven(record, turn)
        return True

    async def renew(self, answer_id: str) -> bool:
        """False: another gateway has it, it was cancelled, or it is not driven here."""
        driven = self._driven.get(answer_id)
        if driven is None:
            return False
        if driven.turn == 0:
            return await self.claim(driven.record)
        call = self._call(answer_scripts.RENEW, driven, self._active_ms)
        renewed = (await self._journal.exchange([*self._indexed(driven.record), call]))[-1] == 1
        if not renewed:
            self._driven.pop(answer_id, None)
        return renewed

    async def release(self, answer_id: str) -> None:
        """Its client has gone; for the time of an ended one, anybody may go on with it."""
        driven = self._driven.pop(answer_id, None)
        if driven is None:
            return
        background = driven.record.background
        life_ms = self._active_ms if background else self._terminal_ms
        released = await self._journal.exchange([self._call(answer_scripts.RELEASE, driven, life_ms)])
        if released[0] == 1 and background:
            freed = Call(answer_scripts.INDEX_FREED, (self._index,), (answer_id, self._active_ms))
            await self._journal.exchange([freed])

    async def conclude(self, answer_id: str, status: AnswerStatus, detail: str = "") -> None:
        """Nothing happens when it is not driven here any more, or was cancelled meanwhile."""
        driven = self._driven.pop(answer_id, None)
        if driven is None:
            return
        call = self._call(answer_scripts.CONCLUDE, driven, self._terminal_ms, status.value, detail)
        concluded = await self._journal.exchange([call])
        if concluded[0] == 1 and driven.record.background:
            await self._unindex(answer_id)

    async def read(self, answer_id: str) -> StoredAnswer | None:
        call = Call(answer_scripts.READ, (self._key(answer_id),), (self._driver_ms,))
        flat, live = (await self._journal.exchange([call]))[0]
        fields = pairs(flat)
        if not fields:
            return None
        record = decode_answer(fields["record"])
        return StoredAnswer(
            record=record,
            status=AnswerStatus(fields["status"]),
            driver=fields["driver"] if live else "",
            requests=tuple(await self._journal.read_all(record.request_ids)),
            detail=fields.get("detail", ""),
        )

    async def cancel(self, answer_id: str) -> bool:
        """False also when it is not known."""
        call = Call(answer_scripts.CANCEL, (self._key(answer_id),), (self._terminal_ms,))
        cancelled = (await self._journal.exchange([call]))[0] == 1
        if cancelled:
            await self._unindex(answer_id)
        return cancelled

    async def orphans(self) -> list[str]:
        """At most 100 at once. Costs as much as there are, not as there are background answers."""
        call = Call(answer_scripts.SILENT, (self._index,), (self._driver_ms, _ORPHANS_AT_ONCE))
        silent: list[str] = (await self._journal.exchange([call]))[0]
        calls = [Call(answer_scripts.ORPHANED, (self._key(name),), (self._driver_ms,)) for name in silent]
        states = list(zip(silent, await self._journal.exchange(calls), strict=True))
        gone = [name for name, state in states if state < 0]
        if gone:
            await self._unindex(*gone)
        return [name for name, state in states if state > 0]

    async def _unindex(self, *answer_ids: str) -> None:
        await self._journal.exchange([Call(answer_scripts.UNINDEX, (self._index,), answer_ids)])

    def _call(self, script: Script, driven: _Driven, life_ms: int, *more: str) -> Call:
        record = driven.record
        fixed = (self._gateway_id, driven.turn, self._driver_ms, life_ms, encode(record), record.fingerprint)
        return Call(script, (self._key(record.answer_id),), (*fixed, *more))

    def _indexed(self, record: AnswerRecord) -> list[Call]:
        """First, so that a background answer that is there is also found."""
        index = Call(answer_scripts.INDEX, (self._index,), (record.answer_id, self._active_ms))
        return [index] if record.background else []

    def _key(self, answer_id: str) -> str:
        return self._journal.key(answer_id, "answer")

    @property
    def _index(self) -> str:
        return f"{self._journal.settings.prefix}background"
