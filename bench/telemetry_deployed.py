"""What observing costs a cluster as it is deployed: `python -m easel.bench.telemetry_deployed`.

easel.bench.telemetry puts all of a cluster into one process. Here Ray starts one for each part, the
same load comes over HTTP, and what observing adds is told for each of them: a gateway's work is done
beside a replica's, which alone bounds the throughput where there is a core for both.
"""

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from easel.bench.cluster import run_http
from easel.bench.engine import as_medians
from easel.bench.report import Figure, describe_setup, figure, print_figures, print_setup, write_json
from easel.bench.telemetry import OFF, Sink, section_of
from easel.bench.workload import Case, demo_jobs
from easel.cluster.config import load_config
from easel.cluster.config_sections import TelemetrySection
from easel.cluster.lifecycle import RunningCluster, start
from easel.cluster.ray_environment import free_port
from easel.worker.model_info import read_model_info

ON = "one in ten traced"
CASES = (Case(8), Case(32))
PARTS = {"replica": "ray::ServeReplica:easel:workers", "gateway": "ray::ServeReplica:easel:gateways"}
_SCRAPE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Round:
    """What one cluster did under one case."""

    tokens_per_second: float
    milliseconds: dict[str, float]  # processor time of a request, by part


def measure(model: Path, section: TelemetrySection, seed: int, waves: int) -> dict[str, Round]:
    """A cluster's rounds, by case; the cluster is started for them."""
    info = read_model_info(model)
    settings = {
        "model": model,
        "port": free_port(),
        "replicas": 1,
        "engine": {"dtype": "float32", "threads": 1},
        "telemetry": section.model_dump(),
    }
    with start(load_config(overrides=settings)) as cluster, _scraped(cluster.base_url):
        ask = partial(run_http, cluster.base_url, cluster.model_name)
        found: dict[str, Round] = {}
        for case in CASES:  # warms up
            asyncio.run(ask(demo_jobs(info, case.concurrency * waves, case.seed(2 * seed)), case.concurrency))
        for case in CASES:
            jobs = partial(demo_jobs, info, case.concurrency * waves)
            before, began = _processor_seconds(cluster), time.perf_counter()
            tokens = asyncio.run(ask(jobs(case.seed(2 * seed + 1)), case.concurrency))
            seconds = time.perf_counter() - began
            spent = _processor_seconds(cluster)
            requests = case.concurrency * waves
            each = {name: 1e3 * (spent[name] - before[name]) / requests for name in PARTS}
            found[case.name] = Round(tokens / seconds, each)
    return found


def main() -> None:
    options = _options()
    console = Console()
    setup = describe_setup(options.model.name, "float32", 1)
    print_setup(console, setup)
    rounds: dict[str, list[dict[str, Round]]] = {OFF: [], ON: []}
    with tempfile.TemporaryDirectory() as folder:
        sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        observed = section_of(f"http://127.0.0.1:{sink.server_port}", 0.1, Path(folder))
        sections = {OFF: TelemetrySection(log_level="warning"), ON: observed}
        for seed in range(options.rounds):
            for name in sorted(sections, reverse=seed % 2 == 1):  # nobody is always the first
                rounds[name].append(measure(options.model, sections[name], seed, options.waves))
        sink.shutdown()
    measures: dict[str, Callable[[Round], float]] = {"throughput, tok/s": lambda one: one.tokens_per_second}
    for part in PARTS:
        measures[f"processor time of a request in the {part}, ms"] = partial(_of_part, part)
    figures = {
        title: {case.name: _compared(rounds, case.name, of) for case in CASES}
        for title, of in measures.items()
    }
    for title, rows in figures.items():
        name, _, unit = title.partition(", ")
        print_figures(console, name, unit, rows, places=2)
    write_json(options.out, setup, {title: as_medians(rows) for title, rows in figures.items()})


def _of_part(part: str, one: Round) -> float:
    return one.milliseconds[part]


def _compared(
    rounds: dict[str, list[dict[str, Round]]], case: str, of: Callable[[Round], float]
) -> dict[str, Figure]:
    values = {name: [of(one[case]) for one in done] for name, done in rounds.items()}
    added = [100.0 * (on / off - 1.0) for off, on in zip(values[OFF], values[ON], strict=True)]
    return {name: figure(found) for name, found in values.items()} | {"observing adds, %": figure(added)}


def _processor_seconds(cluster: RunningCluster) -> dict[str, float]:
    spent = dict.fromkeys(PARTS, 0.0)
    for process in psutil.Process(cluster.process.pid).children(recursive=True):
        title = " ".join(process.cmdline())
        for part, named in PARTS.items():
            if title.startswith(named):
                times = process.cpu_times()
                spent[part] += times.user + times.system
    return spent


@contextmanager
def _scraped(base_url: str) -> Generator[None]:
    """/metrics is asked now and then, as by Prometheus; of both variants."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(_SCRAPE_SECONDS):
            httpx.get(f"{base_url}/metrics", trust_env=False)

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.telemetry_deployed", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waves", type=int, default=20, help="requests of a round for each stream")
    parser.add_argument("--out", type=Path, default=Path("bench/results/telemetry_deployed.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
