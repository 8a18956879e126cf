"""What a step costs besides the model's forward: `python -m easel.bench.overhead`.

Planning, laying out the batch, the head of the embedded model's 103 tokens, commit rules, registers
and results, in milliseconds of one thread's processor time a step. Once with the model in place,
between whose forwards everything else runs with cold caches; once with a model that returns the
same hidden states whatever it is given.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from easel.bench.bare_replicas import run_engine
from easel.bench.engine import as_medians
from easel.bench.report import Figure, alternate, describe_setup, print_figures, print_setup, write_json
from easel.bench.workload import ONE_A_STEP, demo_jobs
from easel.worker.batch import ForwardBatch
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.kv_cache import KVCache
from easel.worker.loading import load_engine
from easel.worker.models.backbone import Backbone
from easel.worker.step_program import Machine

SLOTS = (1, 8, 32)
MOST_TOKENS = 4096  # of one forward


@dataclass(slots=True)
class TimedModel:
    """A model that takes the time its forwards take."""

    model: Backbone
    seconds: float = 0.0
    forwards: int = 0

    @property
    def head(self) -> Tensor:
        return self.model.head

    def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None) -> Tensor:
        started = time.thread_time()
        found = self.model.forward(batch, cache, conditioning)
        self.seconds += time.thread_time() - started
        self.forwards += 1
        return found


@dataclass(frozen=True, slots=True)
class ConstantModel:
    """Hidden states that depend on nothing."""

    head: Tensor  # [vocabulary, h]
    hidden: Tensor  # [most tokens, h]

    def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None) -> Tensor:
        return self.hidden[: len(batch.tokens)]


def timed(engine: Engine) -> TimedModel:
    """Put a watch on the engine's model."""
    machine = engine.runner.machine
    watched = TimedModel(machine.model)
    engine.runner.machine = Machine(watched, machine.cache, machine.registers, machine.denoiser)
    return watched


def without_model(engine: Engine) -> None:
    machine = engine.runner.machine
    head = machine.model.head
    generator = torch.Generator().manual_seed(0)
    hidden = 3.0 * torch.randn(MOST_TOKENS, head.shape[1], generator=generator)
    constant = ConstantModel(head, hidden.to(head.dtype))
    engine.runner.machine = Machine(constant, machine.cache, machine.registers, machine.denoiser)


def overhead(engine: Engine, watched: TimedModel, slots: int) -> Callable[[], float]:
    """Milliseconds a step besides the forward; every round takes new tasks, one position a step."""
    rounds = 0

    def once() -> float:
        nonlocal rounds
        rounds += 1
        jobs = demo_jobs(engine.model, 3 * slots + 4, 1000 * slots + rounds, ONE_A_STEP)
        before, steps, started = watched.seconds, watched.forwards, time.thread_time()
        run_engine(engine, jobs)
        spent = time.thread_time() - started - (watched.seconds - before)
        return 1e3 * spent / (watched.forwards - steps)

    return once


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    console = Console()
    setup = describe_setup(options.model.name, "float32", 1)
    print_setup(console, setup)
    rows: dict[str, dict[str, Figure]] = {}
    for slots in SLOTS:
        runs: dict[str, Callable[[], float]] = {}
        for name in ("with the model", "with a constant"):
            engine = load_engine(options.model, EngineConfig(slots=slots, dtype="float32"))
            if name == "with a constant":
                without_model(engine)
            runs[name] = overhead(engine, timed(engine), slots)
            runs[name]()
        rows[f"{slots} slots"] = alternate(runs, options.rounds)
    print_figures(console, "A step besides its forward", "ms", rows, places=2)
    write_json(options.out, setup, {"unit": "ms/step", "figures": as_medians(rows)})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.overhead", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results/overhead.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
