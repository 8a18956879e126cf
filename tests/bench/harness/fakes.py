"""Servers to load: one that streams tokens as OpenAI's do, one that streams blocks as Easel does."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from easel.bench.harness.answers import Answer, BlockSeen, CanvasReport, Tokens
from easel.bench.harness.records import Record

Json = dict[str, Any]
LOAD = {"slots": 4, "pages": 64, "page_size": 8, "block_length": 4, "cost": [1e-3, 2e-5, 3e-9, 4e-6]}
METRICS = (
    "# HELP vllm:diffusion_num_denoising_steps_total Steps\n"
    'vllm:diffusion_num_denoising_steps_total{{engine="0"}} {steps}\n'
    'vllm:diffusion_num_committed_tokens_total{{engine="0"}} {tokens}\n'
)


@dataclass(slots=True)
class FakeServer:
    """A plain server of tokens: a role, then a chunk per token, then usage if asked for, then [DONE]."""

    answer: Callable[[str], str] = lambda prompt: "one two three"
    refuse_first: int = 0  # so many requests get a 429
    status: int = 200
    broken: bool = False  # streams end after the first token
    asked: list[Json] = field(default_factory=list[Json])
    headers: list[Json] = field(default_factory=list[Json])
    tokens_made: int = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/completions", self._generate)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        self.more_routes(app)
        return app

    def more_routes(self, app: web.Application) -> None: ...

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "fake"}]})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=METRICS.format(steps=self.tokens_made // 2, tokens=self.tokens_made))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body: Json = await request.json()
        self.asked.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if len(self.asked) <= self.refuse_first:
            return web.json_response({"error": "busy"}, status=429, headers={"retry-after": "0"})
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in self.chunks(body, prompt_of(body)):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            if self.broken and chunk["choices"] and text_of(chunk):
                return response
        await response.write(b"data: [DONE]\n\n")
        return response

    def chunks(self, body: Json, prompt: str) -> list[Json]:
        words = self.answer(prompt).split(" ")
        pieces = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
        self.tokens_made += len(pieces)
        chunks = [chunk_of(body, piece) for piece in pieces] + [chunk_of(body, "", finish="stop")]
        if "messages" in body:
            chunks.insert(0, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        if body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 3 + len(prompt) // 4, "completion_tokens": len(pieces)}
            chunks.append({"choices": [], "usage": usage})
        return chunks


class FakeEasel(FakeServer):
    """Two blocks an answer, the second without text where the answer is one character long."""

    def more_routes(self, app: web.Application) -> None:
        app.router.add_get("/health", self._health)

    async def _health(self, request: web.Request) -> web.Response:
        other = LOAD | {"cost": [3e-3, 4e-5, 5e-9, 6e-6]}
        return web.json_response({"model": "fake", "load": {"a": LOAD, "b": other}})

    def chunks(self, body: Json, prompt: str) -> list[Json]:
        text = self.answer(prompt)
        blocks = [{"steps": 3, "tokens": 1, "ms": 7.0}, {"steps": 1, "tokens": 1, "ms": 2.0}]
        diffusion = {"queue_ms": 5.0, "prefill_ms": 2.0, "cached_tokens": 4, "finish": blocks}
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        return [
            chunk_of(body, text[:1]),
            chunk_of(body, text[1:], finish="stop"),
            {"choices": [], "usage": usage, "diffusion": diffusion},
        ]


def prompt_of(body: Json) -> str:
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def chunk_of(body: Json, text: str, finish: str | None = None) -> Json:
    part = {"delta": {"content": text}} if "messages" in body else {"text": text}
    return {"choices": [part | {"index": 0, "finish_reason": finish}]}


def text_of(chunk: Json) -> str:
    choice = chunk["choices"][0]
    return choice.get("text") or choice.get("delta", {}).get("content", "")


@asynccontextmanager
async def serving(fake: FakeServer) -> AsyncGenerator[str, None]:
    """Its address."""
    server = TestServer(fake.app())
    await server.start_server()
    try:
        yield str(server.make_url("/"))
    finally:
        await server.close()


@dataclass(slots=True)
class VirtualClock:
    """Time that passes at once, as soon as everybody sleeps."""

    _now: float = 0.0
    _sleepers: list[tuple[float, int, asyncio.Future[None]]] = field(
        default_factory=list[tuple[float, int, asyncio.Future[None]]]
    )
    _count: int = 0
    _waiting: bool = False

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        woken = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._now + seconds, self._count, woken))
        if not self._waiting:
            self._waiting = True
            self._when_idle(10)
        await woken

    def _when_idle(self, turns: int) -> None:
        """Whoever is ready runs first: each turn is one round of the loop."""
        if turns:
            asyncio.get_running_loop().call_soon(self._when_idle, turns - 1)
            return
        self._now, _, woken = heappop(self._sleepers)
        if not woken.done():
            woken.set_result(None)
        self._waiting = bool(self._sleepers)
        if self._waiting:
            self._when_idle(10)


@dataclass(slots=True)
class FakeAsker:
    """Answers after so many seconds of the clock; refuses so often before it does."""

    clock: VirtualClock
    seconds: float = 1.0
    refusals: int = 0
    retry_after: float | None = 2.0
    asked: list[tuple[float, Json]] = field(default_factory=list[tuple[float, Json]])

    async def ask(self, path: str, body: Json) -> Answer:
        self.asked.append((self.clock.now(), body))
        answer = Answer()
        if len(self.asked) <= self.refusals:
            answer.fail("status 429", "busy")
            answer.retry_after = self.retry_after
            return answer
        await self.clock.sleep(self.seconds)
        answer.text, answer.tokens, answer.ended = "yes", Tokens(10, 5), True
        return answer


def a_record(
    number: int = 0,
    due: float = 0.0,
    chunks: tuple[float, ...] = (0.1, 0.3),
    *,
    label: str = "",
    error: str = "",
    steps: int = 4,
) -> Record:
    """A request that was answered in blocks of 8 tokens at those times after it was due."""
    at = tuple(due + chunk for chunk in chunks)
    blocks = tuple(BlockSeen(steps, 8, 0.05) for _ in at)
    return Record(
        number=number,
        turn=0,
        label=label,
        client=-1,
        due=due,
        began=due,
        sent=due,
        chunks=at,
        end=at[-1] if at else due,
        max_tokens=64,
        tokens=Tokens(20, 8 * len(at), 5),
        canvases=CanvasReport(blocks, 0.01, 0.02, 5),
        correct=True,
        error=error,
    )
