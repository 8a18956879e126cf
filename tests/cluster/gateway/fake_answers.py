"""Gateways that share a journal of answers, in memory."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from easel.cluster.errors import JournalUnavailable
from easel.cluster.gateway.answer_drive import AnswerTimes
from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.settings import GatewaySettings, Sources
from easel.cluster.journal_records import (
    AnswerRecord,
    AnswerStatus,
    JournaledRequest,
    StoredAnswer,
    without_gaps,
)
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import Request
from tests.cluster.gateway.fakes import (
    CHAT,
    MODEL,
    FakeBackend,
    Script,
    Ticks,
    blocks_of,
    byte_tokenizer,
    model_info,
    tokens_of,
)
from tests.cluster.gateway.leaving_client import Client

STORY = "Once upon a time, naïve 🐈 sat."
BLOCKS = -(-len(STORY.encode()) // 8)
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
TIMES = AnswerTimes(driver_seconds=0.02, poll_seconds=0.001, settle_seconds=0.001, outage_seconds=0.05)


@dataclass(slots=True)
class Entry:
    """One answer in the journal."""

    record: AnswerRecord
    status: AnswerStatus = AnswerStatus.IN_PROGRESS
    driver: str = ""
    detail: str = ""


@dataclass(slots=True)
class SharedJournal:
    """What all gateways see."""

    answers: dict[str, Entry] = field(default_factory=dict[str, Entry])
    blocks: dict[str, dict[int, BlockEvent]] = field(default_factory=dict[str, dict[int, BlockEvent]])

    def append(self, event: BlockEvent) -> None:
        self.blocks.setdefault(event.request_id, {}).setdefault(event.block_index, event)

    def requests(self, record: AnswerRecord) -> tuple[JournaledRequest | None, ...]:
        kept = [self.blocks.get(request_id) for request_id in record.request_ids]
        return tuple(
            None if blocks is None else JournaledRequest(None, without_gaps(blocks), None, "", 1)
            for blocks in kept
        )

    def forget_drivers(self) -> None:
        """The leases of gateways that have died run out."""
        for entry in self.answers.values():
            entry.driver = ""


@dataclass(slots=True)
class FakeAnswerStore:
    """One gateway's way to the journal."""

    journal: SharedJournal
    gateway_id: str
    away: bool = False
    released: list[str] = field(default_factory=list[str])

    async def claim(self, record: AnswerRecord) -> bool:
        await self._exchange()
        entry = self.journal.answers.setdefault(record.answer_id, Entry(record))
        if entry.record.fingerprint != record.fingerprint or entry.status is not AnswerStatus.IN_PROGRESS:
            return False
        if entry.driver not in ("", self.gateway_id):
            return False
        entry.driver = self.gateway_id
        return True

    async def renew(self, answer_id: str) -> bool:
        await self._exchange()
        return self._mine(answer_id) is not None

    async def release(self, answer_id: str) -> None:
        await self._exchange()
        if (entry := self._mine(answer_id)) is not None:
            entry.driver = ""
            self.released.append(answer_id)

    async def conclude(self, answer_id: str, status: AnswerStatus, detail: str = "") -> None:
        await self._exchange()
        if (entry := self._mine(answer_id)) is not None:
            entry.status, entry.detail, entry.driver = status, detail, ""

    async def read(self, answer_id: str) -> StoredAnswer | None:
        await self._exchange()
        entry = self.journal.answers.get(answer_id)
        if entry is None:
            return None
        requests = self.journal.requests(entry.record)
        return StoredAnswer(entry.record, entry.status, entry.driver, requests, entry.detail)

    async def cancel(self, answer_id: str) -> bool:
        await self._exchange()
        entry = self.journal.answers.get(answer_id)
        if entry is None or entry.status is not AnswerStatus.IN_PROGRESS:
            return False
        entry.status = AnswerStatus.CANCELLED
        return True

    async def orphans(self) -> list[str]:
        await self._exchange()
        return [
            answer_id
            for answer_id, entry in self.journal.answers.items()
            if entry.record.background and entry.status is AnswerStatus.IN_PROGRESS and not entry.driver
        ]

    def _mine(self, answer_id: str) -> Entry | None:
        entry = self.journal.answers.get(answer_id)
        if entry is None or entry.status is not AnswerStatus.IN_PROGRESS:
            return None
        return entry if entry.driver == self.gateway_id else None

    async def _exchange(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise JournalUnavailable("redis://nowhere", "it is away")


@dataclass
class ResumingBackend(FakeBackend):
    """Journals each block before it hands it out, and goes on after the blocks a request brings."""

    journal: SharedJournal = field(default_factory=SharedJournal)
    unwritten: int = 0  # with `hold_after`: blocks handed out last that the journal lacks

    async def stream(
        self, request: Request, done: Sequence[BlockEvent] = ()
    ) -> AsyncGenerator[BlockEvent | CanvasSnapshot, None]:
        script = list(self.script(request))
        known = _blocks_in(request, [event for event in script if isinstance(event, BlockEvent)])
        assert [event.block_index for event in done] == list(range(known))
        rest = FakeBackend(lambda _: script[known:], hold_after=self.hold_after)
        rest.requests, rest.cancelled, rest.holding = self.requests, self.cancelled, self.holding
        events = rest.stream(request)
        try:
            async for event in events:
                if isinstance(event, BlockEvent) and not self._is_lost(event):
                    self.journal.append(event)
                yield event
        finally:
            await events.aclose()

    def _is_lost(self, event: BlockEvent) -> bool:
        return self.hold_after is not None and event.block_index + self.unwritten >= self.hold_after


def _blocks_in(request: Request, whole: list[BlockEvent]) -> int:
    """How many blocks the request brings; they must be the very ones that would have come."""
    ends = [0, *itertools.accumulate(len(event.tokens) for event in whole)]
    known = ends.index(len(request.committed))
    brought = tuple(token for event in whole[:known] for token in event.tokens)
    assert request.committed == brought
    return known


@dataclass
class Cluster:
    """Gateways over one journal. Each has a backend of its own, which dies with it."""

    script: Callable[[Request], Script]
    journal: SharedJournal = field(default_factory=SharedJournal)
    ids: Iterator[str] = field(default_factory=lambda: (f"id{count}" for count in itertools.count()))
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    times: AnswerTimes = TIMES
    now: float = 1000.5  # wall clock

    def gateway(
        self, gateway_id: str, hold_after: int | None = None, clock: Callable[[], float] | None = None
    ) -> "FakeGateway":
        store = FakeAnswerStore(self.journal, gateway_id)
        backend = ResumingBackend(self.script, hold_after=hold_after, journal=self.journal)
        sources = Sources(
            clock=clock or Ticks(),
            wall=lambda: self.now,
            new_id=lambda: next(self.ids),
            new_seed=lambda: 4242,
        )
        app = build_gateway(
            backend, model_info(), byte_tokenizer(), self.settings, sources, store, self.times
        )
        return FakeGateway(app, store, backend)


@dataclass(slots=True)
class FakeGateway:
    """One gateway of a cluster."""

    app: FastAPI
    store: FakeAnswerStore
    backend: ResumingBackend

    def die(self) -> None:
        """From now on it reaches nobody, and its leases run out."""
        self.store.away = True
        self.store.journal.forget_drivers()

    def connect(self, body: object, path: str = CHAT, **headers: str) -> "Client":
        return Client(self.app, path, json.dumps(body).encode(), headers)


def without_costs(chunk: dict[str, Any]) -> dict[str, Any]:
    """A chunk less what says how it came about."""
    diffusion = chunk.get("diffusion")
    return chunk if diffusion is None else chunk | {"diffusion": diffusion | {"resumed": 0}}


def story(request: Request) -> list[BlockEvent]:
    """What every gateway's backend says."""
    return blocks_of(request, tokens_of(STORY))


def texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    """What a stream's chunks add up to, choice by choice."""
    found: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            text = choice.get("text", choice.get("delta", {}).get("content", ""))
            found[choice["index"]] = found.get(choice["index"], "") + text
    return found


async def settled(cluster: Cluster) -> None:
    """Waits until every answer is known to have ended."""
    gateway = cluster.gateway("waiting")
    while any(entry.status is AnswerStatus.IN_PROGRESS for entry in cluster.journal.answers.values()):
        await gateway.store.orphans()
