"""What the cluster costs: the same load through HTTP and on bare engines, `python -m easel.bench.cluster`.

Bare engines are as many processes as the cluster has replicas, with the same threads each, so
the ratio is what Ray, the gateway, the scheduler, the journal and the load generator take.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
from rich.console import Console

from easel.bench.bare_replicas import BareReplicas
from easel.bench.report import Figure, alternate, describe_setup, print_figures, print_setup, write_json
from easel.bench.workload import ONE_A_STEP, Case, Job, demo_jobs
from easel.cluster.config import ClusterConfig
from easel.cluster.lifecycle import start
from easel.worker.config import EngineConfig
from easel.worker.model_info import ModelInfo, read_model_info

CASES = (Case(8), Case(32), Case(8, ONE_A_STEP))


async def run_http(base_url: str, model: str, jobs: Sequence[Job], concurrency: int) -> int:
    """Closed loop: `concurrency` clients, each with one request under way; returns output tokens."""
    waiting = iter(jobs)
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=base_url, timeout=600, limits=limits) as client:

        async def work() -> int:
            return sum([await _ask(client, model, job) for job in waiting])

        return sum(await asyncio.gather(*(work() for _ in range(concurrency))))


async def _ask(client: httpx.AsyncClient, model: str, job: Job) -> int:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": job.task.prompt}],
        "max_tokens": job.request.sampling.max_tokens,
        "temperature": 0,
        "diffusion": {"threshold": job.request.diffusion.threshold},
    }
    response = await client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    return response.json()["usage"]["completion_tokens"]


def measure(
    bare: BareReplicas,
    base_url: str,
    model: ModelInfo,
    served_name: str,
    options: argparse.Namespace,
    case: Case,
) -> dict[str, Figure]:
    """Committed tokens a second through HTTP and bare; each round has new tasks, the same for both."""
    rounds = {"cluster": 0, "bare": 0}

    def timed(name: str, run: Callable[[list[Job]], int]) -> Callable[[], float]:
        def once() -> float:
            rounds[name] += 1
            jobs = demo_jobs(model, case.concurrency * options.waves, case.seed(rounds[name]), case.threshold)
            started = time.perf_counter()
            return run(jobs) / (time.perf_counter() - started)

        return once

    variants = {
        "cluster": timed(
            "cluster", lambda jobs: asyncio.run(run_http(base_url, served_name, jobs, case.concurrency))
        ),
        "bare": timed("bare", bare.run),
    }
    for warm_up in variants.values():
        warm_up()
    return alternate(variants, options.rounds)


def main() -> None:
    options = _options()
    console = Console()
    setup = describe_setup(options.model.name, options.dtype, threads=1)
    print_setup(console, setup)
    model = read_model_info(options.model)
    figures: dict[str, dict[str, Figure]] = {}
    config = ClusterConfig.model_validate(
        {
            "model": options.model,
            "replicas": options.replicas,
            "port": options.port,
            "engine": {"dtype": options.dtype},
        }
    )
    with start(config) as cluster:
        for case in CASES:
            slots = max(1, case.concurrency // options.replicas)
            engine = EngineConfig(slots=slots, dtype=options.dtype, threads=1)
            bare = BareReplicas.start(options.model, engine, options.replicas)
            figures[case.name] = measure(bare, cluster.base_url, model, cluster.model_name, options, case)
            bare.stop()
    print_figures(console, "Committed tokens per second", "tok/s", figures)
    ratios = {case: row["cluster"].median / row["bare"].median for case, row in figures.items()}
    for case, ratio in ratios.items():
        console.print(f"{case}: cluster = {ratio:.2f} × bare engines")
    cells = {
        case: {name: [f.median, f.low, f.high] for name, f in row.items()} for case, row in figures.items()
    }
    write_json(options.out, setup, {"unit": "tok/s", "figures": cells, "cluster_over_bare": ratios})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.cluster", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--port", type=int, default=8011)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waves", type=int, default=4, help="requests of each client in a round")
    parser.add_argument("--out", type=Path, default=Path("bench/results/cluster.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
