"""The bare engine against a plain Hugging Face loop: `python -m easel.bench.engine`.

Same checkpoint, tasks, threads and dtype. The loop has no cache; it is run one request at a
time, as a script would, and with prompts of one length batched, which is the best it can do.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from rich.console import Console

from easel.bench.bare_replicas import run_engine
from easel.bench.huggingface import answer_batch, load_backbone
from easel.bench.report import Figure, alternate, describe_setup, print_figures, print_setup, write_json
from easel.bench.workload import ONE_A_STEP, Case, Job, demo_jobs
from easel.demo.reference_loop import Forward
from easel.worker.config import EngineConfig
from easel.worker.device import choose_dtype, cpu_features
from easel.worker.engine import Engine
from easel.worker.loading import load_engine

CASES = (Case(1), Case(8), Case(32), Case(8, ONE_A_STEP))


def run_loop(forward: Forward, engine: Engine, jobs: Iterable[Job]) -> int:
    return sum(
        answer_batch(forward, [job.request.prompt], engine.model, job.request.diffusion.threshold)
        for job in jobs
    )


def run_batched_loop(forward: Forward, engine: Engine, jobs: Iterable[Job]) -> int:
    groups: dict[tuple[int, float], list[tuple[int, ...]]] = defaultdict(list)
    for job in jobs:
        groups[len(job.request.prompt), job.request.diffusion.threshold].append(job.request.prompt)
    return sum(
        answer_batch(forward, prompts, engine.model, threshold) for (_, threshold), prompts in groups.items()
    )


def measure(options: argparse.Namespace, case: Case) -> dict[str, Figure]:
    """Committed tokens a second of each variant; every round takes new tasks, so no prefix is cached."""
    dtype = choose_dtype(options.dtype, torch.device("cpu"), cpu_features())
    engine = load_engine(options.model, EngineConfig(slots=case.concurrency, dtype=options.dtype))
    forward = load_backbone(options.model, dtype)
    rounds = {"engine": 0, "loop": 0, "batched loop": 0}

    def timed(name: str, run: Callable[[list[Job]], int]) -> Callable[[], float]:
        def once() -> float:
            rounds[name] += 1
            count = max(case.concurrency, options.jobs)
            jobs = demo_jobs(engine.model, count, case.seed(rounds[name]), case.threshold)
            started = time.perf_counter()
            return run(jobs) / (time.perf_counter() - started)

        return once

    variants = {
        "engine": timed("engine", lambda jobs: run_engine(engine, jobs)),
        "loop": timed("loop", lambda jobs: run_loop(forward, engine, jobs)),
        "batched loop": timed("batched loop", lambda jobs: run_batched_loop(forward, engine, jobs)),
    }
    for warm_up in variants.values():
        warm_up()
    return alternate(variants, options.rounds)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    console = Console()
    setup = describe_setup(str(options.model.name), options.dtype, options.threads)
    print_setup(console, setup)
    figures = {case.name: measure(options, case) for case in CASES}
    print_figures(console, "Committed tokens per second", "tok/s", figures)
    ratios = {
        case: {name: row["engine"].median / row[name].median for name in row} for case, row in figures.items()
    }
    for case, row in ratios.items():
        console.print(f"{case}: engine = {row['loop']:.2f} × loop, {row['batched loop']:.2f} × batched loop")
    write_json(options.out, setup, {"unit": "tok/s", "figures": as_medians(figures), "engine_over": ratios})


def as_medians(figures: dict[str, dict[str, Figure]]) -> dict[str, dict[str, list[float]]]:
    """[median, lowest, highest] of each cell, for the JSON file."""
    return {
        case: {name: [f.median, f.low, f.high] for name, f in row.items()} for case, row in figures.items()
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.engine", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=10, help="least number of requests in a round")
    parser.add_argument("--out", type=Path, default=Path("bench/results/engine.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
