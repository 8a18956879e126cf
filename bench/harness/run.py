"""One load from its options to its results."""

import asyncio
import os
import platform
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from easel.bench.harness.arrivals import Closed
from easel.bench.harness.client import LoadClient, Target
from easel.bench.harness.clock import WallClock
from easel.bench.harness.easel_trace import trace_of
from easel.bench.harness.errors import NothingAnswered
from easel.bench.harness.figures import seconds_of
from easel.bench.harness.generator import CpuWatch, generator_load
from easel.bench.harness.lengths import Measure, measure_of, prose
from easel.bench.harness.live import Progress, watch
from easel.bench.harness.load import Load, LoadPlan
from easel.bench.harness.results import Results
from easel.bench.harness.scrape import difference, scrape
from easel.bench.harness.slo import Slo, judge
from easel.bench.harness.workloads import Workload, user
from easel.scheduler.trace import write_trace

PROBES = (40, 240)  # characters of the prompts that measure a tokenizer


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """All of `easel bench`. `load.bodies.model` may be empty: the first one served."""

    target: Target
    workload: Workload
    load: LoadPlan
    warm_up: int = 0  # requests before the load that are not counted
    slo: Slo | None = None
    goodput: float = 0.95
    record: Path | None = None  # a trace for `easel simulate`
    setup: Mapping[str, Any] = field(default_factory=dict[str, Any])


def run_bench(plan: BenchPlan, console: Console) -> Results:
    """Makes the load. Raises NoServer or NothingAnswered."""
    _allow_many_connections()
    return asyncio.run(bench(plan, console))


async def bench(plan: BenchPlan, console: Console) -> Results:
    """The same, in a loop of the caller's."""
    clock = WallClock()
    async with LoadClient(plan.target, clock) as client:
        if plan.record is not None:
            await client.json("/health")  # who cannot be recorded is found out before the load
        load = Load(client, plan.workload, await prepared(plan, client), clock)
        await _warm_up(plan, load, client)
        progress, before = Progress(), await scrape(client)
        load.on_record = progress.take
        clock.restart()
        cpu = CpuWatch()
        await watch(load, progress, console, cpu.share)
        generator = generator_load(cpu, load.records)
        if not progress.answered:
            raise NothingAnswered(plan.target.url, len(load.records), _first_failure(load))
        server = difference(before, await scrape(client))
        if plan.record is not None:
            # What the replicas have learned of their costs is best known at the end.
            trace = trace_of(plan.target.url, await client.json("/health"), load.records)
            plan.record.parent.mkdir(parents=True, exist_ok=True)
            plan.record.write_text(write_trace(trace), encoding="utf-8")
    verdict = None
    if plan.slo is not None:
        verdict = judge(load.records, plan.slo, plan.goodput, seconds_of(load.records))
    setup = _setup(plan, load.plan)
    return Results(setup, load.records, generator, server, verdict, load.interrupted)


async def prepared(plan: BenchPlan, client: LoadClient) -> LoadPlan:
    """The load's plan with the model's name and the server's tokens per character."""
    load, bodies = plan.load, plan.load.bodies
    if not bodies.model:
        bodies = replace(bodies, model=await client.model())
        load = replace(load, bodies=bodies)
    if not plan.workload.measured:
        return load
    return replace(load, measure=await measure(client, load))


async def measure(client: LoadClient, load: LoadPlan) -> Measure:
    """Two short prompts of known length; the default where the server tells no usage."""
    rng, seen = Random("probe"), list[tuple[int, int]]()
    for characters in PROBES:
        body = replace(load.bodies, usage=True).body(user(prose(rng, characters)), 1, rng)
        answer = await client.ask(load.bodies.endpoint.path, body)
        if answer.tokens is None:
            return Measure()
        seen.append((characters, answer.tokens.prompt))
    return measure_of(seen)


async def _warm_up(plan: BenchPlan, load: Load, client: LoadClient) -> None:
    """One after the other, of numbers that the load itself does not use."""
    if plan.warm_up:
        few = replace(load.plan, arrivals=Closed(1), requests=plan.warm_up, seed=load.plan.seed - 1)
        warming = Load(client, plan.workload, few, load.clock)
        await warming.run()
        if warming.interrupted:
            raise asyncio.CancelledError


def _first_failure(load: Load) -> str:
    failed = next(iter(load.records), None)
    return "none was sent" if failed is None else f"{failed.error}: {failed.detail}"


def _setup(plan: BenchPlan, load: LoadPlan) -> dict[str, Any]:
    """The circumstances that figures depend on. No key is among them."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "easel": version("easel"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "url": plan.target.url,
        "endpoint": load.bodies.endpoint.value,
        "model": load.bodies.model,
        "seed": load.seed,
        "requests": load.requests,
        "tokens_per_character": load.measure.per_character if plan.workload.measured else None,
        **plan.setup,
    }


def _allow_many_connections() -> None:
    """As many open files as this user may have: an overloaded open loop holds thousands of connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
