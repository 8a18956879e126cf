"""Ten times more requests than the cluster can serve: `python -m easel.bench.overload`.

Capacity is measured first, with clients that wait for their answers. Then requests arrive at a
multiple of it, whatever becomes of them (Poisson), each with a deadline. What counts: admitted
requests keep their deadline, the rest are told 429 with a time to come back, and no process grows.
"""

import argparse
import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import httpx
import psutil
from rich.console import Console

from easel.bench.report import describe_setup, print_setup, write_json
from easel.cluster.config import ClusterConfig
from easel.cluster.lifecycle import start

DEADLINE_HEADER = "x-easel-deadline-ms"
TOO_MANY = 429
MEBIBYTE = 2**20


@dataclass(slots=True)
class Offered:
    """What became of the requests of one phase."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    seconds: list[float] = field(default_factory=list[float])  # of the admitted ones
    without_retry_after: int = 0  # refusals that do not say when to come back
    refusal_seconds: list[float] = field(default_factory=list[float])
    unanswered: int = 0

    def take(self, response: httpx.Response, seconds: float) -> None:
        self.statuses[response.status_code] += 1
        if response.is_success:
            self.seconds.append(seconds)
        elif response.status_code == TOO_MANY:
            self.refusal_seconds.append(seconds)
            self.without_retry_after += "retry-after" not in response.headers

    def within(self, deadline_seconds: float) -> float:
        """Share of the admitted requests that were whole in time."""
        return sum(taken <= deadline_seconds for taken in self.seconds) / max(1, len(self.seconds))


@dataclass(frozen=True, slots=True)
class Client:
    """Asks for answers of many steps, each about another number, so that no prefix is cached."""

    http: httpx.AsyncClient
    model: str
    rng: random.Random
    deadline_ms: int | None = None

    async def ask(self, offered: Offered) -> None:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": f"count {self.rng.randrange(100, 999)} by 7"}],
            "max_tokens": 96,
            "diffusion": {"threshold": 1.0},
        }
        headers = {} if self.deadline_ms is None else {DEADLINE_HEADER: str(self.deadline_ms)}
        began = time.perf_counter()
        try:
            response = await self.http.post("/v1/chat/completions", json=body, headers=headers)
        except httpx.TransportError:
            offered.unanswered += 1
            return
        offered.take(response, time.perf_counter() - began)

    async def closed_loop(self, clients: int, seconds: float) -> float:
        """Requests a second that so many clients get answered."""
        offered, until = Offered(), time.perf_counter() + seconds

        async def one() -> None:
            while time.perf_counter() < until:
                await self.ask(offered)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        return len(offered.seconds) / (time.perf_counter() - began)

    async def open_loop(self, rate: float, seconds: float) -> Offered:
        """Requests that arrive at `rate` a second, whether or not the ones before are answered."""
        offered, tasks = Offered(), set[asyncio.Task[None]]()
        began = due = time.perf_counter()
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.add(asyncio.create_task(self.ask(offered)))
            due += self.rng.expovariate(rate)
        await asyncio.gather(*tasks)
        return offered


async def resident(root: int, samples: list[float], pause_seconds: float = 1.0) -> None:
    """Until cancelled, the memory of a process and all its descendants, MiB."""
    while True:
        family = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
        total = 0
        for process in family:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        samples.append(total / MEBIBYTE)
        await asyncio.sleep(pause_seconds)


async def measure(base_url: str, model: str, root: int, options: argparse.Namespace) -> dict[str, object]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=base_url, timeout=60, limits=limits, trust_env=False) as http:
        rng = random.Random(options.seed)
        capacity = await Client(http, model, rng).closed_loop(options.clients, options.warm_seconds)
        samples: list[float] = []
        watching = asyncio.create_task(resident(root, samples))
        client = Client(http, model, rng, options.deadline_ms)
        offered = await client.open_loop(options.factor * capacity, options.seconds)
        watching.cancel()
    admitted = len(offered.seconds)
    tenth = max(1, len(samples) // 10)
    return {
        "capacity_per_second": capacity,
        "offered_per_second": sum(offered.statuses.values()) / options.seconds,
        "statuses": {str(status): count for status, count in sorted(offered.statuses.items())},
        "admitted_per_second": admitted / options.seconds,
        "admitted_within_deadline": offered.within(options.deadline_ms / 1000),
        "admitted_p99_seconds": quantiles(offered.seconds, n=100)[-1] if admitted > 1 else None,
        "refusal_p50_seconds": quantiles(offered.refusal_seconds, n=2)[0]
        if offered.refusal_seconds
        else None,
        "unanswered": offered.unanswered,
        "refusals_without_retry_after": offered.without_retry_after,
        "memory_mib": {
            "first_tenth": max(samples[:tenth]),
            "last_tenth": max(samples[-tenth:]),
            "most": max(samples),
        },
    }


def main() -> None:
    options = _options()
    console = Console()
    setup = describe_setup(options.model.name, "float32", threads=1)
    print_setup(console, setup)
    config = ClusterConfig.model_validate(
        {"model": options.model, "replicas": 2, "port": options.port, "engine": {"slots": 8, "threads": 1}}
    )
    with start(config) as cluster:
        figures = asyncio.run(measure(cluster.base_url, cluster.model_name, cluster.process.pid, options))
    for name, value in figures.items():
        console.print(f"[dim]{name}[/dim] {value}")
    load = {"factor": options.factor, "seconds": options.seconds, "deadline_ms": options.deadline_ms}
    write_json(options.out, setup, {"load": load, "figures": figures})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.overload", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--port", type=int, default=8012)
    parser.add_argument("--clients", type=int, default=32, help="in the closed loop that measures capacity")
    parser.add_argument("--warm-seconds", type=float, default=15.0)
    parser.add_argument("--factor", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--deadline-ms", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench/results/overload.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
