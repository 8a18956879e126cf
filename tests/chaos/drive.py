"""One run: the unfaulted answers, a checked load, and faults at random moments until time is up."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from tests.chaos.clients import Manner
from tests.chaos.cluster import MODEL, ChaosCluster, NotRecovered, Size
from tests.chaos.faults import FaultKind, Site
from tests.chaos.load import Load, unfaulted
from tests.chaos.outages import FAULTS
from tests.chaos.questions import questions
from tests.chaos.report import Injected, Report
from tests.chaos.tally import Tally

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does."""

    seconds: float = 600.0  # of load, beside starting and stopping
    seed: int = 1
    faults: tuple[FaultKind, ...] = tuple(FaultKind)
    manners: tuple[Manner, ...] = tuple(Manner)
    clients: int = 12
    questions: int = 36
    outage_seconds: float = 30.0
    pause_seconds: float = 2.0  # most between a recovery and the next fault
    overlap: bool = False  # the next fault does not wait for the recovery from the last
    once: bool = False  # end when each kind has been injected once
    size: Size = field(default_factory=Size)


async def run(plan: Plan, say: Say) -> Report:
    """Start a cluster, hurt it, and end it. Raises RuntimeError or StartFailed when it does not start."""
    begin = time.monotonic()
    async with ChaosCluster(plan.size) as cluster:
        say(f"cluster of {plan.size} is up after {time.monotonic() - begin:.0f} s at {cluster.base_url}")
        asked = questions(plan.seed, plan.questions)
        oracle = await unfaulted(cluster.base_url, MODEL, asked)
        blocks = sum(len(choice) for answer in oracle.values() for choice in answer)
        say(f"{len(oracle)} unfaulted answers of {blocks} blocks")
        tally = Tally()
        load = Load(cluster.base_url, MODEL, oracle, tally, list(plan.manners), plan.seed)
        report = Report(plan.seed, tally, cluster.memory())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(plan.clients))
            try:
                await _hurt(cluster, plan, report, say)
            except NotRecovered as error:
                tally.failure(f"the cluster did not recover: {error}")
                say(str(error))
            finally:
                load.stop()
        report.memory_after = cluster.memory()
        report.health = await cluster.health()
    return report


async def _hurt(cluster: ChaosCluster, plan: Plan, report: Report, say: Say) -> None:
    rng = random.Random(f"faults/{plan.seed}")
    site = Site(cluster, rng, plan.outage_seconds)
    report.begin = time.monotonic()
    until = report.begin + plan.seconds
    healing: set[asyncio.Task[None]] = set()
    try:
        await asyncio.sleep(plan.pause_seconds)
        report.calm_until = time.monotonic()
        for kind in _deck(plan.faults, rng, plan.once):
            await asyncio.sleep(rng.random() * plan.pause_seconds)
            if time.monotonic() > until:
                break
            hurting = asyncio.create_task(_inject(site, kind, report, say))
            if plan.overlap:
                healing.add(hurting)
                hurting.add_done_callback(healing.discard)
            else:
                await hurting
        await asyncio.gather(*healing)
    finally:
        report.end = time.monotonic()


async def _inject(site: Site, kind: FaultKind, report: Report, say: Say) -> None:
    before = frozenset((await site.cluster.health())["replicas"])
    begin = time.monotonic()
    try:
        injury = await FAULTS[kind](site)
    except (psutil.Error, LookupError, OSError) as missed:
        say(f"     {kind} found nobody to hurt: {missed!r}")
        return
    over = time.monotonic()
    recovery = await site.cluster.whole(before, injury.replaced)
    report.injected.append(Injected(kind, begin, over, over + recovery, injury.detail))
    number, tally = len(report.injected), report.tally
    say(
        f"{number:4d} {kind:16} {over - begin:5.1f} s, whole again after {recovery:5.1f} s: {injury.detail}; "
        f"{tally.blocks} blocks, {tally.failed} failed, {tally.difference.total} tokens wrong"
    )
    for detail in tally.details[report.said :]:
        say(f"     {detail}")
    report.said = len(tally.details)


def _deck(kinds: Sequence[FaultKind], rng: random.Random, once: bool) -> list[FaultKind]:
    """Every kind equally often, in random order, and more of them than any run takes."""
    deck: list[FaultKind] = []
    for _ in range(1 if once else 500):
        deck += rng.sample(list(kinds), len(kinds))
    return deck
