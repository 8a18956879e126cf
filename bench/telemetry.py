"""What traces, logs and metrics cost: `python -m easel.bench.telemetry`.

The same streams through clusters that are one process each, in turn: one that nobody observes, and
two that write a line of JSON log for each request, keep their counts in shared files, answer
/metrics every five seconds, and send traces to a collector, of one request in ten as is the default
or of all. All of a cluster is in one process, so that what observing takes is taken from the
forwards. Beside throughput the processor time of a request is given, which other programs on the
machine disturb less. Each round has processes of its own, for one may be a few per cent slower
than its twin for as long as it lives; within a round they take many short turns.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from rich.console import Console

from easel.bench.engine import as_medians
from easel.bench.one_process_cluster import OneProcessCluster, one_process_cluster
from easel.bench.report import (
    Figure,
    Setup,
    describe_setup,
    figure,
    print_figures,
    print_setup,
    write_json,
)
from easel.bench.workload import ONE_A_STEP, Case, demo_jobs
from easel.cluster.config_sections import TelemetrySection
from easel.worker.config import EngineConfig
from easel.worker.engine_thread import ENGINE_THREAD

CASES = (Case(8), Case(32), Case(8, ONE_A_STEP))
OFF = "not observed"
RATIOS = {"one in ten traced": 0.1, "all traced": 1.0}


@dataclass(frozen=True, slots=True)
class Round:
    """What one variant did in one round."""

    tokens: int
    requests: int
    seconds: float  # wall clock
    processor_seconds: float  # of all threads of the process
    engine_seconds: float  # processor time of the engine's thread, which telemetry has no part in
    forwards: int

    @property
    def other_seconds(self) -> float:
        """Processor time of all that is not forwards."""
        return self.processor_seconds - self.engine_seconds


@dataclass(frozen=True, slots=True)
class Variant:
    """A cluster in a process of its own."""

    process: SpawnProcess
    pipe: Connection

    @classmethod
    def start(cls, model: Path, section: TelemetrySection | None) -> "Variant":
        """Blocks until it is ready."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, model, section))
        process.start()
        ours.recv()
        return cls(process, ours)

    def run(self, case: Case, requests: int, seed: int) -> Round:
        self.pipe.send((case, requests, seed))
        return self.pipe.recv()

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much is run."""

    rounds: int
    turns: int  # of each variant, in a round
    waves: int  # requests of a turn for each stream


def measure(
    starts: dict[str, Callable[[], Variant]], cases: Sequence[Case], schedule: Schedule
) -> dict[str, dict[str, list[Round]]]:
    """Rounds of each variant, by case; in a round all do the same tasks."""
    found: dict[str, dict[str, list[Round]]] = {case.name: {name: [] for name in starts} for case in cases}
    for number in range(schedule.rounds):
        with ExitStack() as running:
            variants = {name: start() for name, start in starts.items()}
            for variant in variants.values():
                running.callback(variant.stop)
            for case in cases:
                seed = case.seed(number * (schedule.turns + 1))
                for name, turns in _take_turns(variants, case, schedule, seed).items():
                    found[case.name][name].append(together(turns))
    return found


def _take_turns(
    variants: dict[str, Variant], case: Case, schedule: Schedule, seed: int
) -> dict[str, list[Round]]:
    turns: dict[str, list[Round]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(schedule.turns + 1):
        first = turn % len(names)  # nobody always comes after the same one
        for name in names[first:] + names[:first]:
            done = variants[name].run(case, case.concurrency * schedule.waves, seed + turn)
            if turn:  # the first one warms up
                turns[name].append(done)
    return turns


def together(turns: Sequence[Round]) -> Round:
    """Their sum."""
    return Round(
        sum(turn.tokens for turn in turns),
        sum(turn.requests for turn in turns),
        sum(turn.seconds for turn in turns),
        sum(turn.processor_seconds for turn in turns),
        sum(turn.engine_seconds for turn in turns),
        sum(turn.forwards for turn in turns),
    )


def costs(
    rounds: dict[str, list[Round]], of: Callable[[Round], float], total: Callable[[Round], float]
) -> dict[str, Figure]:
    """What observing adds `of` something, round by round, in per cent of that `total` without it."""
    return {
        name: figure(
            [
                100.0 * (of(on) - of(off)) / total(off)
                for off, on in zip(rounds[OFF], rounds[name], strict=True)
            ]
        )
        for name in RATIOS
    }


def main() -> None:
    options = _options()
    console = Console()
    setup = describe_setup(options.model.name, "float32", 1)
    print_setup(console, setup)
    with tempfile.TemporaryDirectory() as folder:
        sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        collector = f"http://127.0.0.1:{sink.server_port}"
        sections = {name: section_of(collector, ratio, Path(folder) / name) for name, ratio in RATIOS.items()}
        starts = {
            name: partial(Variant.start, options.model, section)
            for name, section in {OFF: None, **sections}.items()
        }
        measured = measure(starts, CASES, Schedule(options.rounds, options.turns, options.waves))
        sink.shutdown()
    _report(console, options.out, setup, measured)


def section_of(collector: str, ratio: float, folder: Path) -> TelemetrySection:
    """Everything on."""
    return TelemetrySection(
        otlp_endpoint=collector,
        sample_ratio=ratio,
        log_format="json",
        log_directory=folder,
        metrics_directory=folder / "metrics",
    )


def _time(one: Round) -> float:
    return one.seconds / one.tokens


def _work(one: Round) -> float:
    return one.processor_seconds / one.requests


def _work_of_others(one: Round) -> float:
    return one.other_seconds / one.requests


MEASURES: dict[tuple[str, str], Callable[[Round], float]] = {
    ("throughput", "tok/s"): lambda one: one.tokens / one.seconds,
    ("processor time of a request", "ms"): lambda one: 1e3 * _work(one),
    ("of which outside the engine", "ms"): lambda one: 1e3 * _work_of_others(one),
    ("forwards of a request", "number"): lambda one: one.forwards / one.requests,
}
ADDED: dict[str, tuple[Callable[[Round], float], Callable[[Round], float]]] = {
    "observing adds to the time of a token": (_time, _time),
    "observing adds to processor time": (_work, _work),
    "observing adds outside the engine": (_work_of_others, _work),
}


def _report(console: Console, out: Path, setup: Setup, measured: dict[str, dict[str, list[Round]]]) -> None:
    found: dict[str, dict[str, dict[str, Figure]]] = {}
    for (title, unit), of in MEASURES.items():
        rows = {
            case: {name: figure([of(one) for one in done]) for name, done in rounds.items()}
            for case, rounds in measured.items()
        }
        print_figures(console, title, unit, rows, places=2)
        found[f"{title}, {unit}"] = rows
    for title, (of, total) in ADDED.items():
        rows = {case: costs(done, of, total) for case, done in measured.items()}
        print_figures(console, title, "%", rows, places=2)
        found[f"{title}, %"] = rows
    write_json(out, setup, {name: as_medians(rows) for name, rows in found.items()})


class Sink(BaseHTTPRequestHandler):
    """A collector that keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the library's name
        pass


def _serve(pipe: Connection, model: Path, section: TelemetrySection | None) -> None:
    torch.set_num_threads(1)
    asyncio.run(_serve_rounds(pipe, model, section))


async def _serve_rounds(pipe: Connection, model: Path, section: TelemetrySection | None) -> None:
    config = EngineConfig(slots=32, dtype="float32", threads=1)
    async with one_process_cluster(model, config, section) as cluster:
        pipe.send("ready")
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            case, requests, seed = order
            jobs = demo_jobs(cluster.model, requests, seed, case.threshold)
            before = _Clocks.read(cluster)
            tokens = await cluster.run(jobs, case.concurrency)
            pipe.send(_Clocks.read(cluster).since(before, tokens, requests))


@dataclass(frozen=True, slots=True)
class _Clocks:
    wall: float
    process: float
    engine: float
    forwards: int

    @classmethod
    def read(cls, cluster: OneProcessCluster) -> "_Clocks":
        (thread,) = (one for one in threading.enumerate() if one.name == ENGINE_THREAD)
        engine = time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))
        return cls(time.perf_counter(), time.process_time(), engine, cluster.forwards)

    def since(self, before: "_Clocks", tokens: int, requests: int) -> Round:
        return Round(
            tokens,
            requests,
            self.wall - before.wall,
            self.process - before.process,
            self.engine - before.engine,
            self.forwards - before.forwards,
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.telemetry", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turns", type=int, default=6, help="of each variant, in a round")
    parser.add_argument("--waves", type=int, default=4, help="requests of a turn for each stream")
    parser.add_argument("--out", type=Path, default=Path("bench/results/telemetry.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
