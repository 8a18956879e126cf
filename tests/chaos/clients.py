"""Clients of every manner: each asks one question and holds on until the answer is whole."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.chaos.connection import Connection, Failed, Forgotten, ServerEvent
from tests.chaos.questions import Question

_ENDS = {"response.completed", "response.incomplete"}
_REOFFER_PAUSES = 10
_ERRORS = {"error", "response.failed"}


class Manner(StrEnum):
    """How a client asks."""

    STREAM = "stream"
    SLOW = "slow"  # reads with pauses
    LEAVE = "leave"  # hangs up after some blocks and comes back
    WHOLE = "whole"
    RESPONSE = "response"  # a stream of the Responses API
    BACKGROUND = "background"  # a response in the background, read in several goes


@dataclass(slots=True)
class Client:
    """One question, one answer, over as many connections as it takes."""

    connection: Connection
    question: Question
    manner: Manner
    model: str
    rng: random.Random
    answer: list[list[str]] = field(default_factory=list[list[str]])  # blocks of each choice
    abandoned: list[list[list[str]]] = field(default_factory=list[list[list[str]]])  # parts of forgotten ones
    connections: int = 0  # made so far
    _waiting_since: float = 0.0
    _key: str = field(default_factory=lambda: uuid.uuid4().hex)
    _seen: str = ""  # id of the last event
    _response: str = ""  # id of the response
    _goes: int = 0  # connections it still hangs up on purpose

    async def ask(self) -> list[list[str]]:
        """The blocks of each choice; a whole answer is one block. Raises Failed."""
        self.answer = [[] for _ in range(self.question.choices)]
        self._goes = self.rng.randint(1, 2) if self.manner in {Manner.LEAVE, Manner.BACKGROUND} else 0
        self._waiting_since = time.monotonic()
        attempts = {
            Manner.WHOLE: self._whole,
            Manner.RESPONSE: self._response_stream,
            Manner.BACKGROUND: self._background,
        }
        attempt = attempts.get(self.manner, self._chat_stream)
        last_chance = False
        while True:
            try:
                await self.connection.persist(attempt)
            except Forgotten as forgotten:
                if last_chance:
                    self._ask_anew(forgotten)
                # Whoever drives it tells a Redis that has forgotten it again, a moment later.
                last_chance = not last_chance
                await asyncio.sleep(self.connection.pause_seconds * _REOFFER_PAUSES)
            else:
                return self.answer

    def _ask_anew(self, forgotten: Forgotten) -> None:
        self.connection.tally.forgot(f"{self.manner}: {forgotten}")
        self.abandoned.append(self.answer)
        self.answer = [[] for _ in range(self.question.choices)]
        self._key, self._seen, self._response = uuid.uuid4().hex, "", ""

    async def _whole(self) -> bool:
        body = self.question.body(self.model)
        whole = await self.connection.post("/v1/chat/completions", body, {"Idempotency-Key": self._key})
        self.answer = [[choice["message"]["content"]] for choice in whole["choices"]]
        return True

    async def _chat_stream(self) -> bool:
        headers = {"Idempotency-Key": self._key}
        if self._seen:
            headers = {"Last-Event-ID": self._seen}
            self.connection.tally.resumed += 1
        elif any(self.answer):
            raise Failed("the connection broke, and no event had an id to go on from")
        body = self.question.body(self.model) | {"stream": True}
        events = self.connection.events("POST", "/v1/chat/completions", body, headers)
        return await self._read(events, self._take_chunk)

    async def _response_stream(self) -> bool:
        if self._response:
            return await self._go_on()
        body = self.question.response_body(self.model) | {"stream": True}
        headers = {"Idempotency-Key": self._key}
        return await self._read(
            self.connection.events("POST", "/v1/responses", body, headers), self._take_response
        )

    async def _background(self) -> bool:
        if not self._response:
            body = self.question.response_body(self.model) | {"background": True}
            created = await self.connection.post("/v1/responses", body, {"Idempotency-Key": self._key})
            self._response = created["id"]
        return await self._go_on()

    async def _go_on(self) -> bool:
        """The rest of a response, from the last event that was seen."""
        path = f"/v1/responses/{self._response}?stream=true"
        if self._seen:
            path += f"&starting_after={self._seen}"
            self.connection.tally.resumed += 1
        return await self._read(self.connection.events("GET", path, None, {}), self._take_response)

    async def _read(self, events: AsyncGenerator[ServerEvent, None], take: Any) -> bool:
        """Whether the answer is whole; otherwise the connection broke, or was hung up."""
        self.connections += 1
        patience = self.rng.randint(1, 4) if self._goes else 0
        async with aclosing(events):
            async for event in events:
                if event.name in _ERRORS:
                    raise Failed(f"event {event.name}: {event.data[:300]}")
                if take(event):
                    return True
                self._seen = event.last_id or self._seen
                if patience and sum(map(len, self.answer)) >= patience:
                    self._goes -= 1
                    break
                await self._rest()
        await asyncio.sleep(self.rng.random() * 0.5)
        return False

    def _take_chunk(self, event: ServerEvent) -> bool:
        if event.data == "[DONE]":
            return True
        for choice in event.json().get("choices", ()):
            self.answer[choice["index"]].append(choice["delta"].get("content") or "")
            self._got_a_block()
        return False

    def _take_response(self, event: ServerEvent) -> bool:
        data = event.json()
        if event.name == "response.created":
            self._response = data["response"]["id"]
        if event.name == "response.output_text.delta":
            self.answer[0].append(data["delta"])
            self._got_a_block()
        return event.name in _ENDS

    def _got_a_block(self) -> None:
        number = sum(map(len, self.answer))
        self.connection.tally.waited(
            self._waiting_since,
            f"{self.manner}, block {number}, {self.connections} connections, {self._seen}",
        )
        self._waiting_since = time.monotonic()

    async def _rest(self) -> None:
        if self.manner is Manner.SLOW:
            await asyncio.sleep(self.rng.random() * 0.6)
            self._waiting_since = time.monotonic()
