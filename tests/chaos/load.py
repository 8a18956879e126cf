"""Concurrent clients that ask for as long as they may, each answer held against the unfaulted one."""

import asyncio
import random
from dataclasses import dataclass, field

from tests.chaos.clients import Client, Manner
from tests.chaos.connection import Connection, Failed
from tests.chaos.questions import Blocks, Question, compare
from tests.chaos.tally import Tally

Oracle = dict[Question, tuple[Blocks, ...]]

_SINGLE = {Manner.RESPONSE, Manner.BACKGROUND}  # know no choices


async def unfaulted(base_url: str, model: str, asked: list[Question]) -> Oracle:
    """Every question's answer, one after the other, while nothing else runs. Raises Failed."""
    connection = Connection(base_url, Tally())
    answers: Oracle = {}
    try:
        for question in asked:
            blocks = await Client(connection, question, Manner.STREAM, model, random.Random(0)).ask()
            answers[question] = tuple(map(tuple, blocks))
    finally:
        await connection.close()
    return answers


@dataclass(slots=True)
class Load:
    """`run` until `stop`; then every client finishes the answer it is reading."""

    base_url: str
    model: str
    oracle: Oracle
    tally: Tally
    manners: list[Manner]
    seed: int
    running: int = 0  # answers being waited for
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, clients: int) -> None:
        connection = Connection(self.base_url, self.tally)
        try:
            await asyncio.gather(*(self._client(connection, number) for number in range(clients)))
        finally:
            await connection.close()

    def stop(self) -> None:
        self._stopped.set()

    async def _client(self, connection: Connection, number: int) -> None:
        rng = random.Random(f"client/{self.seed}/{number}")
        while not self._stopped.is_set():
            manner = rng.choice(self.manners)
            fitting = [asked for asked in self.oracle if asked.choices == 1 or manner not in _SINGLE]
            client = Client(connection, rng.choice(fitting), manner, self.model, rng)
            self.running += 1
            try:
                await self._check(client)
            finally:
                self.running -= 1

    async def _check(self, client: Client) -> None:
        question, tally = client.question, self.tally
        tally.requests[client.manner.value] += 1
        about = f"{client.manner} {question}"
        try:
            answer = await client.ask()
        except Failed as failed:
            tally.failure(f"{failed} ({about})")
            return
        for part in client.abandoned:
            for expected, got in zip(self.oracle[question], part, strict=True):
                tally.wrong(compare(expected[: len(got)], got), f"{about}, the part before it was forgotten")
        for expected, got in zip(self.oracle[question], answer, strict=True):
            right = ("".join(expected),) if client.manner is Manner.WHOLE else expected
            tally.wrong(compare(right, got), f"{about}: {right} became {got}")
            tally.blocks += len(expected)
            tally.tokens += sum(map(len, got))
