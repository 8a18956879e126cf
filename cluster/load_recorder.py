"""A small load generator: asks a cluster questions whose answers are known, and records what happened.

Closed loop: clients that each have one request under way. Open loop: arrivals of a Poisson process.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from random import Random
from typing import Any

import httpx

from easel.cluster.chat_client import ChatFailed
from easel.cluster.errors import ConfigError
from easel.scheduler.messages import CostCoefficients
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.trace import BlockTrace, RequestTrace, Trace, TraceHeader

CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the only right answer."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What load to make. With `rate` 0 the loop is closed."""

    requests: int = 200
    clients: int = 8
    rate: float = 0.0  # arrivals a second
    max_tokens: int = 128
    thresholds: tuple[float, ...] = ()  # confidence that decides a position, drawn per request; (): default
    seed: int = 0


def known_questions() -> list[Question]:
    """Those that come with the embedded model."""
    text = (files("easel.demo") / "questions.json").read_text(encoding="utf-8")
    return [Question(**question) for question in json.loads(text)]


@dataclass(slots=True)
class LoadRecorder:
    """Makes the load and keeps what was seen. `record` may be called once."""

    http: httpx.AsyncClient
    plan: LoadPlan
    questions: Sequence[Question]
    clock: Callable[[], float] = time.monotonic  # seconds
    on_answer: Callable[[], None] = lambda: None
    failures: list[str] = field(default_factory=list[str])
    _model: str = ""
    _started: float = 0.0
    _answers: list[RequestTrace] = field(default_factory=list[RequestTrace])

    async def record(self) -> Trace:
        """Raises ChatFailed where no cluster answers, or none of the requests was answered."""
        before = await self._health()
        self._model = str(before["model"])
        self._started = self.clock()
        if self.plan.rate > 0.0:
            await self._open_loop()
        else:
            await self._closed_loop()
        if not self._answers:
            raise ChatFailed(str(self.http.base_url), self.failures[0] if self.failures else "no answers")
        answers = sorted(self._answers, key=lambda answer: answer.arrival)
        # What the replicas have learned of their costs is best known at the end.
        return Trace(header_of(await self._health()), tuple(answers))

    async def _closed_loop(self) -> None:
        numbers = iter(range(self.plan.requests))

        async def client(index: int) -> None:
            for number in numbers:
                await self._ask(number, index)

        await asyncio.gather(*(client(index) for index in range(self.plan.clients)))

    async def _open_loop(self) -> None:
        rng, due = Random(f"arrivals/{self.plan.seed}"), self.clock()
        asked: list[asyncio.Task[None]] = []
        for number in range(self.plan.requests):
            due += rng.expovariate(self.plan.rate)
            await asyncio.sleep(max(0.0, due - self.clock()))
            asked.append(asyncio.create_task(self._ask(number, -1)))
        await asyncio.gather(*asked)

    async def _ask(self, number: int, client: int) -> None:
        rng = Random(f"{self.plan.seed}/{number}")
        question = self.questions[rng.randrange(len(self.questions))]
        body = self._body(question, rng)
        arrival, times, text = self.clock(), list[float](), ""
        chunk: dict[str, Any] = {}
        try:
            async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.is_error:
                    self.failures.append(f"status {response.status_code}: {(await response.aread())[:200]!r}")
                    return
                async for line in response.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    for choice in chunk["choices"]:
                        times.append(self.clock())
                        text += choice["delta"].get("content") or ""
        except (httpx.HTTPError, KeyError, ValueError) as error:
            self.failures.append(repr(error))
            return
        if "usage" not in chunk:
            self.failures.append(f"the stream of question {number} ended early: {chunk}")
            return
        correct = text.strip() == question.answer
        self._answers.append(self._trace(number, client, body, arrival, times, chunk, correct))
        self.on_answer()

    def _body(self, question: Question, rng: Random) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": question.prompt}],
            "max_tokens": self.plan.max_tokens,
            "temperature": 0,
            "stream": True,
        }
        if self.plan.thresholds:
            body["diffusion"] = {"threshold": rng.choice(self.plan.thresholds)}
        return body

    def _trace(
        self,
        number: int,
        client: int,
        body: dict[str, Any],
        arrival: float,
        times: Sequence[float],
        last: dict[str, Any],
        correct: bool,
    ) -> RequestTrace:
        diffusion, usage = last["diffusion"], last["usage"]
        blocks = tuple(
            BlockTrace(round(at - self._started, 6), block["steps"], block["tokens"], block["ms"] / 1000)
            for at, block in zip(times, diffusion["finish"], strict=False)
        )
        return RequestTrace(
            request_id=f"request-{number}",
            arrival=round(arrival - self._started, 6),
            prompt_tokens=usage["prompt_tokens"],
            max_tokens=body["max_tokens"],
            blocks=blocks,
            queue_seconds=diffusion["queue_ms"] / 1000,
            prefill_seconds=diffusion["prefill_ms"] / 1000,
            cached_tokens=diffusion["cached_tokens"],
            client=client,
            correct=correct,
        )

    async def _health(self) -> dict[str, Any]:
        try:
            answer = await self.http.get("/health")
            answer.raise_for_status()
            return dict(answer.json())
        except (httpx.HTTPError, ValueError, TypeError) as error:
            problem = f"{error or type(error).__name__}; is `easel serve` running there?"
            raise ChatFailed(str(self.http.base_url), problem) from error


def header_of(health: dict[str, Any]) -> TraceHeader:
    """What /health says of the cluster; a fitted cost only where replicas report one."""
    loads: list[dict[str, Any]] = list(health.get("load", {}).values())
    first = loads[0] if loads else {}
    costs = [_coefficients(load["cost"]) for load in loads if "cost" in load]
    pages = int(first.get("pages", 1024))
    block = int(first.get("block_length", 32))
    return TraceHeader(
        replicas=max(1, len(loads)),
        slots=int(first.get("slots", 16)),
        pages=pages,
        page_size=int(first.get("page_size", block)),
        block_length=block,
        layout=SequenceLayout(first.get("layout", SequenceLayout.BLOCK_CAUSAL)),
        cost=_mean(costs) if costs else None,
        cost_error=max((float(load.get("cost_error", 0.0)) for load in loads), default=0.0),
        model=str(health.get("model", "")),
    )


def _coefficients(cost: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, cost))


def _mean(costs: Sequence[tuple[float, ...]]) -> CostCoefficients:
    return CostCoefficients(*(sum(column) / len(costs) for column in zip(*costs, strict=True)))


def as_thresholds(text: str) -> tuple[float, ...]:
    """Numbers between 0 and 1, separated by commas. Raises ConfigError."""
    try:
        values = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        values = (-1.0,)
    if any(not 0.0 <= value <= 1.0 for value in values):
        raise ConfigError("--thresholds", f"{text!r} must be numbers between 0 and 1, such as 0.9,1.0.")
    return values
