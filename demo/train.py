"""Trains the demo model: `python -m easel.demo.train --out DIR --steps N`.

A step draws its tasks and its noise from (seed, step, worker) alone. Stopping (Ctrl-C, SIGTERM
or `--minutes`) saves the whole state, and `--resume` goes on as if nothing had happened.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from easel.demo.curriculum import batch_of_step
from easel.demo.optimizer import average_into
from easel.demo.packing import Batch
from easel.demo.recorder import Recorder
from easel.demo.reference_loop import Forward
from easel.demo.run_state import STATE_FILE, RunState
from easel.demo.tasks import TaskName
from easel.demo.workers import Workers, run_together


def learning_rate_factor(step: int, options: argparse.Namespace) -> float:
    """Warm-up, constant, then linear decay to zero over the last `decay_steps`."""
    return min(1.0, (step + 1) / options.warmup_steps, (options.steps - step) / max(1, options.decay_steps))


def losses(forward: Forward, batch: Batch) -> tuple[Tensor, Tensor]:
    """The weighted mean over masked positions, and each position's cross-entropy, [rows, row]."""
    logits = forward(batch.tokens, batch.positions, batch.allowed)
    each = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    each = each.view_as(batch.weights)
    return (each * batch.weights).sum() / batch.weights.sum(), each.detach()


def train_step(
    run: RunState, forward: Forward, workers: Workers, options: argparse.Namespace, stop: bool
) -> tuple[dict[str, float], bool]:
    """One update; returns each task's mean cross-entropy, and whether any worker asks to stop."""
    batch = batch_of_step(options.seed, run.step, workers.rank)
    loss, each = losses(forward, batch)
    loss.backward()
    stop = workers.average_gradients(run.model.parameters(), stop)
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    factor = learning_rate_factor(run.step, options)
    for optimizer, rate in zip(run.optimizers, (options.muon_lr, options.adam_lr), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        optimizer.step()
        optimizer.zero_grad()
    run.step += 1
    average_into(run.average, run.model, run.step, options.average_decay)
    return {name: float(each[batch.tasks == index].mean()) for index, name in enumerate(TaskName)}, stop


def train(workers: Workers, options: argparse.Namespace) -> None:
    """Steps until `--steps`, `--minutes` or a signal; rank 0 saves and evaluates as it goes."""
    torch.set_num_threads(options.threads)
    run = RunState.load(options.resume, options) if options.resume else RunState.fresh(options)
    forward = torch.compile(run.model) if options.compile else run.model
    deadline = time.monotonic() + options.minutes * 60
    recorder = Recorder(options)
    stop = False
    with _signals_caught() as interrupted, _progress(workers) as progress:
        bar = progress.add_task("training", total=options.steps, completed=run.step)
        while run.step < options.steps and not stop:
            wish = interrupted.is_set() or time.monotonic() > deadline
            figures, stop = train_step(run, forward, workers, options, wish)
            progress.update(bar, completed=run.step)
            if workers.leads:
                recorder.after_step(run, figures)
    if workers.leads:
        run.save(options.out)
        print(f"at step {run.step} of {options.steps}; go on with --resume {options.out / STATE_FILE}")


@contextmanager
def _signals_caught() -> Generator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set meanwhile, so that a step is never cut in two."""
    interrupted = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        interrupted.set()

    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield interrupted
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _progress(workers: Workers) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not (workers.leads and sys.stdout.isatty()))


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.demo.train", description="Train the demo model.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and metrics.jsonl")
    parser.add_argument("--resume", type=Path, help="state.pt of an earlier run to go on from")
    parser.add_argument("--steps", type=int, default=12_000, help="step at which training is complete")
    parser.add_argument("--decay-steps", type=int, default=2_000, help="last steps, with falling rate")
    parser.add_argument("--warmup-steps", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop and save after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes; part of what a run is")
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.003)
    parser.add_argument("--average-decay", type=float, default=0.998)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--evaluate-every", type=int, default=500)
    parser.add_argument("--evaluate-tasks", type=int, default=48, help="held-out tasks of each kind")
    parser.add_argument("--compile", action="store_true", help="torch.compile; needs a C++ compiler")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_options(sys.argv[1:])
    run_together(options.workers, train, options)


if __name__ == "__main__":
    main()
