"""Workloads for the contest of composition policies: what arrives when, and what it will need."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import merge
from random import Random

from easel.bench.phase_steps import draw_steps
from easel.scheduler.request import Priority
from easel.scheduler.sim_work import (
    ClosedLoop,
    Load,
    OpenLoop,
    SimulatedRequest,
    draw_blocks,
    simulated_request,
)

MAX_TOKENS = 1024
GEMMA_BLOCK = 256
LONG_PROMPT = (8_000, 32_000)  # tokens, inclusive
LLADA_BLOCK, LLADA_OUTPUT, LLADA_STEPS, LLADA_REBUILD = 32, 256, (4, 24), 8


@dataclass(frozen=True, slots=True)
class Mix:
    """Requests of one kind, drawn from seeds; the same number gives the same request."""

    name: str
    prompt_median: int = 500  # tokens; log-normal
    output_mean: int = 400  # tokens; exponential, up to MAX_TOKENS
    long_share: float = 0.0  # of prompts
    block: int = GEMMA_BLOCK
    output: int | None = None  # tokens of every answer, where all are alike
    steps: Callable[[Random], int] = draw_steps
    rebuild_every: int = 0
    priority: Priority = Priority.STANDARD

    def request(self, seed: int, number: int, arrival: float, client: int = -1) -> SimulatedRequest:
        rng = Random(f"{self.name}/{seed}/{number}")
        prompt = int(min(8_000, max(50, self.prompt_median * rng.lognormvariate(0.0, 1.0))))
        if rng.random() < self.long_share:
            prompt = rng.randint(*LONG_PROMPT)
        said = self.output or int(min(MAX_TOKENS, max(32, rng.expovariate(1 / self.output_mean))))
        request = simulated_request(
            f"{self.name}-{seed}-{number}",
            prompt,
            self.output or MAX_TOKENS,
            priority=self.priority,
            rebuild_every=self.rebuild_every,
        )
        return SimulatedRequest(arrival, request, draw_blocks(rng, self.steps, said, self.block), client)


def llada_steps(rng: Random) -> int:
    return rng.randint(*LLADA_STEPS)


CHAT = Mix("chat")
LONG = Mix("long prompts", long_share=0.1)
BATCH = replace(CHAT, name="batch", priority=Priority.BATCH)
INTERACTIVE = replace(CHAT, name="interactive", priority=Priority.INTERACTIVE)
LLADA = Mix(
    "whole-sequence rebuilds",
    prompt_median=300,
    block=LLADA_BLOCK,
    output=LLADA_OUTPUT,
    steps=llada_steps,
    rebuild_every=LLADA_REBUILD,
)


def closed(mix: Mix, seed: int, clients: int, *, until: float) -> Load:
    """Clients that ask again at once, until the given second."""
    asked = [0] * clients

    def make(client: int, now: float) -> SimulatedRequest | None:
        if now >= until:
            return None
        asked[client] += 1
        return mix.request(seed, client + clients * asked[client], now, client)

    return ClosedLoop(make, clients)


def poisson(mix: Mix, seed: int, rate: float, *, until: float) -> Iterator[SimulatedRequest]:
    """Independent arrivals, so many a second."""
    rng, now, number = Random(f"arrivals/{mix.name}/{seed}"), 0.0, 0
    while (now := now + rng.expovariate(rate)) < until:
        number += 1
        yield mix.request(seed, number, now)


def bursts(
    mix: Mix, seed: int, size: int, *, every: float, first: float, until: float
) -> Iterator[SimulatedRequest]:
    """So many requests at once, again and again."""
    number, at = 0, first
    while at < until:
        for _ in range(size):
            number += 1
            yield mix.request(seed, 1_000_000 + number, at)
        at += every


def open_loop(*streams: Iterator[SimulatedRequest]) -> Load:
    """Several streams of arrivals together."""
    return OpenLoop(merge(*streams, key=lambda work: work.arrival))


class Backlog:
    """Clients that ask again at once, and others that come at their own times."""

    def __init__(self, clients: Load, others: Load) -> None:
        self._clients = clients
        self._others = others

    def first(self) -> SimulatedRequest | None:
        return self._clients.first() or self._others.first()

    def following(self, arrived: SimulatedRequest) -> SimulatedRequest | None:
        if arrived.client < 0:
            return self._others.following(arrived)
        return self._clients.following(arrived) or self._others.first()

    def after(self, client: int, now: float) -> SimulatedRequest | None:
        return self._clients.after(client, now)
