"""Concurrent streamed completions, and how to see and hit a cluster's processes."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import psutil

WORKER = "ray::ServeReplica:easel:workers"
GATEWAY = "ray::ServeReplica:easel:gateways"
SCHEDULER = "ray::SchedulerActor"


@dataclass(slots=True)
class Answer:
    """What one streamed request came to."""

    text: str = ""
    chunks: int = 0
    finish: str | None = None


@dataclass(slots=True)
class Load:
    """Prompts sent at once; `on_chunk` is called after each chunk of any of them."""

    base_url: str
    prompts: list[str]
    on_chunk: Callable[["Load"], None] = lambda _: None
    answers: list[Answer] = field(default_factory=list[Answer])

    @property
    def chunks(self) -> int:
        return sum(answer.chunks for answer in self.answers)

    @property
    def texts(self) -> list[str]:
        return [answer.text for answer in self.answers]

    @property
    def unfinished(self) -> int:
        return sum(answer.finish is None for answer in self.answers)

    async def run(self) -> None:
        self.answers = [Answer() for _ in self.prompts]
        limits = httpx.Limits(max_connections=len(self.prompts))
        async with httpx.AsyncClient(
            base_url=self.base_url, timeout=90, limits=limits, trust_env=False
        ) as client:
            await asyncio.gather(
                *(self._one(client, *pair) for pair in zip(self.prompts, self.answers, strict=True))
            )

    async def _one(self, client: httpx.AsyncClient, prompt: str, answer: Answer) -> None:
        body = {"model": "easel-demo", "messages": [{"role": "user", "content": prompt}], "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body | {"max_tokens": 96}) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    self._take(json.loads(line.removeprefix("data: ")), answer)

    def _take(self, chunk: dict[str, list[dict[str, dict[str, str]]]], answer: Answer) -> None:
        for choice in chunk.get("choices", ()):
            answer.text += choice["delta"].get("content") or ""
            answer.finish = str(choice["finish_reason"]) if choice.get("finish_reason") else answer.finish
            answer.chunks += 1
        self.on_chunk(self)


def processes_named(root: int, name: str) -> list[psutil.Process]:
    """Descendants of `root` whose title starts with `name`."""
    return [
        process
        for process in psutil.Process(root).children(recursive=True)
        if " ".join(process.cmdline()).startswith(name)
    ]


def kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def eventually(condition: Callable[[], bool], what: str, seconds: float = 45.0) -> None:
    """Poll until the condition holds; fails with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.1)
