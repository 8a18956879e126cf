"""Does balancing phases pay? Four policies, the same work: `python -m easel.bench.phase_balance`.

On the real engine with the embedded model, by processor time and A/B/A/B, and on a simulated
replica with the costs of an H200, over seeds. docs/scaling.md says what is compared and why.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from easel.bench import phase_real, phase_simulated
from easel.bench.phase_real import Arrival, Contestant, requests_of
from easel.bench.phase_static import static_throughput
from easel.bench.report import Figure, describe_setup, print_setup, write_json
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.request import Priority

Figures = Mapping[str, Mapping[str, Figure]]  # by policy, then by figure
COLUMNS = {
    "tokens_per_second": ("tok/s", 1.0, 0),
    "first_block_p50": ("first block p50, ms", 1e3, 0),
    "first_block_p99": ("p99, ms", 1e3, 0),
    "gap_p50": ("gap p50, ms", 1e3, 0),
    "gap_p99": ("p99, ms", 1e3, 0),
    "kept_share": ("promise kept, %", 1e2, 0),
    "step_p99": ("step p99, ms", 1e3, 1),
    "step_cv": ("step CV", 1.0, 3),
}


def _closed(one: Contestant, number: int, count: int) -> list[Arrival]:
    return phase_real.closed(requests_of(one, count, 1000 + number, Priority.STANDARD))


def _open(one: Contestant, number: int, count: int, rate: float) -> list[Arrival]:
    requests = requests_of(one, count, 2000 + number, Priority.STANDARD)
    return phase_real.poisson(requests, rate, number)


def _interactive(one: Contestant, number: int, count: int, rate: float) -> list[Arrival]:
    """A batch backlog, and a burst of the sooner class when a quarter of it is done."""
    backlog = requests_of(one, count, 3000 + number, Priority.BATCH)
    sooner = requests_of(one, phase_real.SLOTS // 2, 4000 + number, Priority.INTERACTIVE)
    arrivals = [Arrival(0.0, request, index) for index, request in enumerate(backlog)]
    return arrivals + phase_real.burst(sooner, at=count / rate / 4)


def measure_real(options: argparse.Namespace, console: Console) -> dict[str, Figures]:
    """All scenarios on engines of this process, one for each policy."""
    torch.set_num_threads(1)
    contestants = [Contestant.load(policy, options.model, options.dtype) for policy in phase_real.POLICIES]
    rate = 0.0
    for one in contestants:  # warms up, and says what a replica can do
        ended, _ = one.play(_closed(one, -1, 2 * phase_real.SLOTS))
        rate = len(ended) / max(request.finish for request in ended)
    count = options.jobs
    scenarios = {
        "closed loop": (partial(_closed, count=count), None),
        "open loop, 70 % load": (partial(_open, count=count, rate=0.7 * rate), None),
        "interactive burst over a batch backlog": (
            partial(_interactive, count=count, rate=rate),
            Priority.INTERACTIVE,
        ),
    }
    found: dict[str, Figures] = {}
    for name, (scenario, of) in scenarios.items():
        found[name] = phase_real.contest(contestants, scenario, options.rounds, of)
        print_contest(console, f"real engine: {name}", found[name])
    return found


def measure_simulated(options: argparse.Namespace, console: Console) -> dict[str, Figures]:
    """All scenarios on simulated replicas."""
    found: dict[str, Figures] = {}
    for scenario in phase_simulated.SCENARIOS:
        found[scenario.name] = phase_simulated.contest(scenario, range(1, options.seeds + 1))
        print_contest(console, f"H200, simulated: {scenario.name}", found[scenario.name])
    return found


def measure_static(
    seeds: int, simulated: Mapping[str, Figures], console: Console
) -> dict[str, dict[str, list[float]]]:
    """Padded batches on the saturated chat replicas: [median, lowest, highest, balanced over the median]."""
    found: dict[str, dict[str, list[float]]] = {}
    for scenario in phase_simulated.SCENARIOS[:2]:
        balanced = simulated[scenario.name][ComposePolicy.BALANCED.value]["tokens_per_second"].median
        found[scenario.name] = {}
        for name, one in static_throughput(range(1, seeds + 1), scenario).items():
            ratio = balanced / one.median
            found[scenario.name][name] = [one.median, one.low, one.high, ratio]
            console.print(f"{scenario.name}, {name}: {one.median:,.0f} tok/s; balanced {ratio:.2f} ×")
    return found


def print_contest(console: Console, title: str, found: Figures) -> None:
    """A line per policy; median (lowest–highest)."""
    table = Table("", title=f"{title} (median, lowest–highest)")
    for label, _, _ in COLUMNS.values():
        table.add_column(label, justify="right")
    for policy, figures in found.items():
        cells = [
            f"{f.median * scale:,.{places}f} ({f.low * scale:,.{places}f}–{f.high * scale:,.{places}f})"
            for f, (_, scale, places) in ((figures[name], column) for name, column in COLUMNS.items())
        ]
        table.add_row(policy, *cells)
    console.print(table)


def ratios(found: Figures) -> dict[str, float]:
    """What balanced comes to, relative to the others: throughput above 1 and waiting below 1 are better."""
    best = found[ComposePolicy.BALANCED.value]
    speed = {
        f"throughput over {policy}": best["tokens_per_second"].median / figures["tokens_per_second"].median
        for policy, figures in found.items()
        if policy != ComposePolicy.BALANCED.value
    }
    fcfs = found[ComposePolicy.FCFS.value]["first_block_p99"].median
    waits = {"fcfs p99 first block over balanced": fcfs / max(1e-9, best["first_block_p99"].median)}
    return speed | waits


def as_json(found: Mapping[str, Figures]) -> dict[str, object]:
    """[median, lowest, highest] of every figure, and the ratios."""
    return {
        name: {
            "figures": {
                policy: {key: [f.median, f.low, f.high] for key, f in figures.items()}
                for policy, figures in scenario.items()
            },
            "balanced": ratios(scenario),
        }
        for name, scenario in found.items()
    }


def main() -> None:
    options = _options()
    console = Console(width=200)
    setup = describe_setup(options.model.name, options.dtype, threads=1)
    print_setup(console, setup)
    results: dict[str, object] = {}
    if not options.real_only:
        simulated = measure_simulated(options, console)
        results["simulated"] = as_json(simulated)
        results["static"] = measure_static(options.seeds, simulated, console)
    if not options.simulated_only:
        results["real"] = as_json(measure_real(options, console))
    write_json(options.out, setup, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.phase_balance", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5, help="of the real engine")
    parser.add_argument("--jobs", type=int, default=64, help="requests of a round of the real engine")
    parser.add_argument("--seeds", type=int, default=3, help="of the simulated replica")
    parser.add_argument("--real-only", action="store_true")
    parser.add_argument("--simulated-only", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench/results/phase_balance.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
