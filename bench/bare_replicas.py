"""Engines without a cluster: one process each, fed by pipes, as many as a cluster has replicas."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from easel.bench.workload import Job
from easel.scheduler.messages import BlockEvent
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine


@dataclass(frozen=True, slots=True)
class BareReplicas:
    """Running engine processes; `run` shares jobs out evenly and waits for all of them."""

    processes: tuple[SpawnProcess, ...]
    pipes: tuple[Connection, ...]

    @classmethod
    def start(cls, path: Path, config: EngineConfig, replicas: int) -> "BareReplicas":
        """Blocks until every engine has loaded."""
        context = multiprocessing.get_context("spawn")
        ends = [context.Pipe() for _ in range(replicas)]
        processes = tuple(context.Process(target=_serve, args=(theirs, path, config)) for _, theirs in ends)
        for process in processes:
            process.start()
        for ours, _ in ends:
            ours.recv()
        return cls(processes, tuple(ours for ours, _ in ends))

    def run(self, jobs: Sequence[Job]) -> int:
        """Output tokens of all jobs."""
        for index, pipe in enumerate(self.pipes):
            pipe.send(list(jobs[index :: len(self.pipes)]))
        return sum(pipe.recv() for pipe in self.pipes)

    def stop(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def run_engine(engine: Engine, jobs: Sequence[Job]) -> int:
    """Submit all jobs at once and step until idle; returns committed output tokens."""
    for job in jobs:
        engine.submit(job.request)
    tokens = 0
    while engine.has_work:
        tokens += sum(len(event.tokens) for event in engine.step() if isinstance(event, BlockEvent))
    return tokens


def _serve(pipe: Connection, path: Path, config: EngineConfig) -> None:
    engine = load_engine(path, config)
    pipe.send("loaded")
    while (jobs := pipe.recv()) is not None:
        pipe.send(run_engine(engine, jobs))
