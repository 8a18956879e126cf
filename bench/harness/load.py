"""Makes the load: conversations arrive, ask turn by turn, and leave records."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf
from random import Random
from typing import Protocol

from easel.bench.harness.answers import Answer
from easel.bench.harness.arrivals import Arrivals, Closed
from easel.bench.harness.client import TOO_MANY
from easel.bench.harness.clock import Clock
from easel.bench.harness.lengths import Measure
from easel.bench.harness.records import Record
from easel.bench.harness.wire import BodyPlan
from easel.bench.harness.workloads import Message, Turn, Workload

FIRST_PAUSE_SECONDS = 0.5  # after a refusal that names no time; doubles
LONGEST_PAUSE_SECONDS = 30.0


class Asker(Protocol):
    """Who sends: LoadClient, or a fake."""

    async def ask(self, path: str, body: dict[str, object]) -> Answer: ...


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How much, and how patiently."""

    arrivals: Arrivals
    bodies: BodyPlan
    seed: int = 0
    requests: int | None = None  # conversations in all; None: as many as arrive in time
    seconds: float = inf  # none begins later
    retries: int = 0  # of a refused request, after the time that the server asks for
    measure: Measure = field(default_factory=Measure)


@dataclass(slots=True)
class Load:
    """`run` once. `records` grows meanwhile; `under_way` is what a live view shows."""

    asker: Asker
    workload: Workload
    plan: LoadPlan
    clock: Clock
    on_record: Callable[[Record], None] = lambda _: None
    records: list[Record] = field(default_factory=list[Record])
    under_way: int = 0
    interrupted: bool = False

    async def run(self) -> None:
        """Until the last answer. Cancelled, it drops what is under way and returns all the same."""
        try:
            if isinstance(self.plan.arrivals, Closed):
                await self._closed_loop(self.plan.arrivals.clients)
            else:
                await self._open_loop(self.plan.arrivals.times(Random(f"arrivals/{self.plan.seed}")))
        except asyncio.CancelledError:
            self.interrupted = True

    async def _closed_loop(self, clients: int) -> None:
        numbers = self._numbers()

        async def client(index: int) -> None:
            for number in numbers:
                due = self.clock.now()
                if due >= self.plan.seconds:
                    return
                await self._converse(number, index, due)

        async with asyncio.TaskGroup() as group:
            for index in range(clients):
                group.create_task(client(index))

    async def _open_loop(self, times: Iterator[float]) -> None:
        async with asyncio.TaskGroup() as group:
            async for number, due in self._due(times):
                group.create_task(self._converse(number, -1, due))

    async def _due(self, times: Iterator[float]) -> AsyncGenerator[tuple[int, float], None]:
        for number, due in zip(self._numbers(), times, strict=False):
            if due >= self.plan.seconds:
                return
            # Sleeping not at all still lets the tasks that were started send.
            await self.clock.sleep(max(0.0, due - self.clock.now()))
            yield number, due

    def _numbers(self) -> Iterator[int]:
        return count() if self.plan.requests is None else iter(range(self.plan.requests))

    async def _converse(self, number: int, client: int, due: float) -> None:
        rng = Random(f"{self.plan.seed}/{number}")
        conversation = self.workload.conversation(number, rng, self.plan.measure)
        said: list[Message] = []
        for index, turn in enumerate(conversation.turns):
            said += turn.messages
            record, text = await self._turn(turn, said, rng, due)
            record = replace(record, number=number, turn=index, client=client)
            self.records.append(record)
            self.on_record(record)
            if not record.answered:
                return
            said.append({"role": "assistant", "content": text})
            if index + 1 < len(conversation.turns) and conversation.think_seconds > 0.0:
                await self.clock.sleep(conversation.think_seconds)
            due = self.clock.now()

    async def _turn(self, turn: Turn, said: list[Message], rng: Random, due: float) -> tuple[Record, str]:
        """Its record, yet without a number, and what was answered."""
        body = self.plan.bodies.body(said, turn.max_tokens, rng)
        began = self.clock.now()
        refusals = 0
        self.under_way += 1
        try:
            while True:
                sent = self.clock.now()
                answer = await self.asker.ask(self.plan.bodies.endpoint.path, body)
                if answer.error != f"status {TOO_MANY}":
                    break
                refusals += 1
                if refusals > self.plan.retries:
                    break
                await self.clock.sleep(_pause(answer, refusals))
        finally:
            self.under_way -= 1
        return _record(turn, answer, (due, began, sent, self.clock.now()), refusals), answer.text


def _pause(answer: Answer, refusals: int) -> float:
    if answer.retry_after is not None:
        return answer.retry_after
    return min(FIRST_PAUSE_SECONDS * 2 ** (refusals - 1), LONGEST_PAUSE_SECONDS)


def _record(turn: Turn, answer: Answer, times: tuple[float, float, float, float], refusals: int) -> Record:
    due, began, sent, end = times
    judged = turn.answer is not None and not answer.error
    return Record(
        number=-1,
        turn=0,
        label=turn.label,
        client=-1,
        due=due,
        began=began,
        sent=sent,
        chunks=answer.chunks,
        end=end,
        max_tokens=turn.max_tokens,
        tokens=answer.tokens,
        canvases=answer.canvases,
        correct=answer.text.strip() == turn.answer if judged else None,
        refusals=refusals,
        error=answer.error,
        detail=answer.detail,
    )
