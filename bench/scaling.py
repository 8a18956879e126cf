"""How far one central scheduler reaches, and several: `python -m easel.bench.scaling`.

Simulated replicas of 64 canvases with the costs of an H200, placed and paced by the production
scheduler, whose real time per decision is measured by the processor's clock.
"""

import argparse
import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from time import process_time

from rich.console import Console
from rich.table import Table

from easel.bench.phase_simulated import DEVICE, GEMMA
from easel.bench.phase_steps import HOST_SECONDS, RooflineSteps, draw_steps
from easel.bench.phase_work import GEMMA_BLOCK, Mix
from easel.bench.report import describe_setup, print_setup, write_json
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.messages import ReplicaShape, Row
from easel.scheduler.shards import ShardedScheduler
from easel.scheduler.sim_outcome import Central, DecisionTimes
from easel.scheduler.sim_report import percentile
from easel.scheduler.sim_work import ClosedLoop, SimulatedRequest
from easel.scheduler.simulated_replica import ReplicaSettings, StepCost
from easel.scheduler.simulator import Simulation
from easel.worker.devices import known_device
from easel.worker.sketch import sketch_preset

SLOTS = 64
COARSE = 4  # steps that are simulated as one, each that much longer
SPREAD_SECONDS = 15.0  # over which the clients begin
SINCE, UNTIL = 30.0, 50.0  # what is counted
KINDS = ("place", "digest", "end", "tick")
TENANTS = 64


@dataclass(frozen=True, slots=True)
class Case:
    """A cluster: so many replicas behind one scheduler, or behind several shards."""

    replicas: int
    shards: int = 1
    lending: bool = True
    skew: float = 0.0  # of tenants: the nth has a share of 1 / n**skew
    fill: float = 1.0  # clients for each slot

    @property
    def name(self) -> str:
        shards = "" if self.shards == 1 else f", {self.shards} shards"
        lending = "" if self.lending else ", no lending"
        skew = f", skewed tenants ({self.skew:g})" if self.skew else ""
        return f"{self.replicas:,} replicas{shards}{skew}{lending}"


ONE_SCHEDULER = (Case(1), Case(10), Case(100), Case(1000))
SHARDED = (Case(1000, shards=2), Case(1000, shards=4), Case(1000, shards=8))
LENT = tuple(
    Case(16, shards=shards, lending=lending, skew=2.0, fill=0.8)
    for shards in (2, 4, 8)
    for lending in (False, True)
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a case came to in the seconds that are counted."""

    tokens_per_second: float
    per_replica: float
    first_block_p99: float  # seconds
    decisions_per_second: float  # placements
    digests_per_second: float
    p50: dict[str, float]  # seconds of one decision, by kind
    p99: dict[str, float]
    busy: dict[str, float]  # share of one processor for each scheduler process, by kind
    utilisation: float  # of one scheduler process, on average
    refused: int
    waiting: int  # requests without a replica at the end
    simulated_in: float  # seconds of real time


def coarse_steps(rng: Random) -> int:
    return max(1, round(draw_steps(rng) / COARSE))


def coarse_cost(cost: StepCost) -> StepCost:
    """COARSE steps in one; refresh work, which comes once, is not repeated in them."""

    def seconds(rows: Sequence[Row]) -> float:
        canvases = [row for row in rows if row.kind.needs_head]
        once = cost(rows)
        return once + (COARSE - 1) * cost(canvases) if canvases else once

    return seconds


def simulation(case: Case, seed: int) -> Simulation:
    """A cluster whose clients keep every slot busy, or `fill` of them."""
    sketch = sketch_preset(GEMMA)
    layout = sketch.info.family.layout
    cost = coarse_cost(RooflineSteps(sketch.anatomy, known_device(DEVICE), layout))
    shape = ReplicaShape(SLOTS, SLOTS * 16, GEMMA_BLOCK, GEMMA_BLOCK, 65_536, frozenset({1}), layout)
    mix = Mix("chat", prompt_median=150, steps=coarse_steps)
    clients = int(case.replicas * SLOTS * case.fill)
    names = [f"tenant-{n}" for n in range(TENANTS)]
    chosen = Random(seed).choices(names, [1 / (n + 1) ** case.skew for n in range(TENANTS)], k=clients)
    asked = [0] * clients

    def make(client: int, now: float) -> SimulatedRequest | None:
        asked[client] += 1
        work = mix.request(seed, client + clients * asked[client], now, client)
        return replace(work, request=replace(work.request, tenant=chosen[client]))

    return Simulation(
        ClosedLoop(make, clients, SPREAD_SECONDS),
        ReplicaSettings(shape, cost, host_seconds=HOST_SECONDS, log_steps=False),
        replicas=case.replicas,
        central=_central(case),
        timer=process_time,
    )


def _central(case: Case) -> Central:
    limits = ClusterLimits(max_waiting=1_000_000, target_seconds=1.0)
    if case.shards == 1:
        return ClusterScheduler(limits)
    return ShardedScheduler(limits, shards=case.shards, lending=case.lending)


def measure(case: Case, seed: int = 1) -> Measured:
    """Runs to SINCE, then counts until UNTIL."""
    started = process_time()
    cluster = simulation(case, seed)
    decisions = cluster.run(SINCE).decisions
    before = {kind: len(_times(decisions, kind)) for kind in KINDS}
    outcome = cluster.run(UNTIL)
    seconds = UNTIL - SINCE
    times = {kind: _times(outcome.decisions, kind)[before[kind] :] for kind in KINDS}
    busy = {kind: sum(of) / seconds / case.shards for kind, of in times.items()}
    speed = outcome.tokens_between(SINCE, UNTIL) / seconds
    return Measured(
        tokens_per_second=speed,
        per_replica=speed / case.replicas,
        first_block_p99=percentile(outcome.first_waits(SINCE, UNTIL), 0.99),
        waiting=cluster.waiting,
        decisions_per_second=len(times["place"]) / seconds,
        digests_per_second=len(times["digest"]) / seconds,
        p50={kind: percentile(of, 0.50) for kind, of in times.items()},
        p99={kind: percentile(of, 0.99) for kind, of in times.items()},
        busy=busy,
        utilisation=sum(busy.values()),
        refused=len(outcome.refused),
        simulated_in=process_time() - started,
    )


def _times(decisions: DecisionTimes, kind: str) -> list[float]:
    return {
        "place": decisions.place,
        "digest": decisions.digest,
        "end": decisions.end,
        "tick": decisions.tick,
    }[kind]


def print_cases(console: Console, title: str, found: dict[str, Measured], one: float | None) -> None:
    table = Table(title=title)
    for name in (
        "",
        "tok/s a replica",
        "efficiency",
        "first block p99, s",
        "placements/s",
        "place p50/p99, µs",
        "digest p50/p99, µs",
        "of a processor",
    ):
        table.add_column(name, justify="right")
    for name, figures in found.items():
        table.add_row(
            name,
            f"{figures.per_replica:,.0f}",
            f"{figures.per_replica / one:.1%}" if one else "",
            f"{figures.first_block_p99:.1f}",
            f"{figures.decisions_per_second:,.0f}",
            f"{figures.p50['place'] * 1e6:,.0f} / {figures.p99['place'] * 1e6:,.0f}",
            f"{figures.p50['digest'] * 1e6:,.0f} / {figures.p99['digest'] * 1e6:,.0f}",
            f"{figures.utilisation:.1%}",
        )
    console.print(table)


def main() -> None:
    options = _options()
    console = Console(width=140)
    setup = describe_setup(f"{GEMMA} on {DEVICE}, simulated", "bfloat16", threads=1)
    print_setup(console, setup)
    # Requests by the hundred thousand are the simulator's, not the scheduler's.
    gc.disable()
    wanted = {
        "one scheduler": [case for case in ONE_SCHEDULER if case.replicas <= options.most],
        "shards": [case for case in SHARDED if case.replicas <= options.most],
        "lending": list(LENT),
    }
    found: dict[str, dict[str, Measured]] = {}
    for title, cases in wanted.items():
        found[title] = {}
        for case in cases:
            found[title][case.name] = measure(case)
            console.print(f"{case.name}: {found[title][case.name].simulated_in:.0f} s")
            gc.collect()
        one = found["one scheduler"][ONE_SCHEDULER[0].name].per_replica
        print_cases(console, title, found[title], one)
    results = {title: {name: asdict(one) for name, one in cases.items()} for title, cases in found.items()}
    write_json(options.out, setup, {"coarse": COARSE, "slots": SLOTS, "results": results})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.scaling", description=__doc__)
    parser.add_argument("--most", type=int, default=1000, help="replicas of the largest cluster")
    parser.add_argument("--out", type=Path, default=Path("bench/results/scaling.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
