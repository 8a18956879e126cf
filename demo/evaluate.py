"""Exact match and steps of a checkpoint, by the engine: `python -m easel.demo.evaluate`.

First the default commit rule on every kind of task, against what is required; then the dial
between quality and latency: a sweep of confidence thresholds and of step budgets.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from easel.demo.dial_plot import plot_dial
from easel.demo.evaluation import REQUIRED, Score, score
from easel.demo.scoring import held_out
from easel.demo.tasks import Task, TaskName
from easel.scheduler.request import CommitRule, DiffusionParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine

CHECKPOINT = Path(__file__).parent / "checkpoint"
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
BUDGETS = (1, 2, 4, 8, 16, 32)

Scores = dict[TaskName, Score]
Tasks = dict[TaskName, list[Task]]


def settings(default: DiffusionParams, sweep: bool) -> dict[str, DiffusionParams]:
    """The default rule under its name, then, if asked for, the sweep."""
    chosen = {"default": default}
    if sweep:
        threshold = replace(default, commit_rule=CommitRule.CONFIDENCE_THRESHOLD)
        budget = replace(default, commit_rule=CommitRule.STATIC_SCHEDULE)
        chosen |= {f"threshold {value}": replace(threshold, threshold=value) for value in THRESHOLDS}
        chosen |= {f"{steps} steps": replace(budget, steps=steps) for steps in BUDGETS}
    return chosen


def evaluate(
    engine: Engine, tasks: Tasks, chosen: dict[str, DiffusionParams], advance: Callable[[], None]
) -> dict[str, Scores]:
    """Scores of every kind of task under every setting."""
    results: dict[str, Scores] = {}
    for name, diffusion in chosen.items():
        results[name] = {}
        for kind, of_kind in tasks.items():
            results[name][kind] = score(engine, of_kind, diffusion)
            advance()
    return results


def print_default(console: Console, scores: Scores) -> bool:
    """The required figures; returns whether all are reached."""
    table = Table("task", "right", "required", "steps per block", title="Default commit rule")
    for kind, found in scores.items():
        reached = found.accuracy >= REQUIRED[kind]
        colour = "green" if reached else "red"
        right = f"[{colour}]{found.accuracy:.1%}[/{colour}] of {found.tasks}"
        table.add_row(kind, right, f"{REQUIRED[kind]:.0%}", f"{found.steps_per_block:.2f}")
    console.print(table)
    return all(found.accuracy >= REQUIRED[kind] for kind, found in scores.items())


def print_dial(console: Console, results: dict[str, Scores]) -> None:
    """Accuracy and, in brackets, steps per block of every setting."""
    table = Table("setting", *TaskName, title="Exact match (steps per block)")
    for name, scores in results.items():
        cells = [f"{scores[kind].accuracy:.1%} ({scores[kind].steps_per_block:.1f})" for kind in TaskName]
        table.add_row(name, *cells)
    console.print(table)


def as_json(results: dict[str, Scores], seed: int, dtype: str) -> str:
    rows = {
        name: {
            kind: {
                "tasks": s.tasks,
                "accuracy": round(s.accuracy, 4),
                "steps_per_block": round(s.steps_per_block, 3),
            }
            for kind, s in scores.items()
        }
        for name, scores in results.items()
    }
    return json.dumps({"seed": seed, "dtype": dtype, "settings": rows}, indent=2) + "\n"


def main() -> int:
    options = _options()
    console = Console()
    engine = load_engine(options.model, EngineConfig(slots=options.slots, dtype=options.dtype))
    tasks = {kind: held_out(kind, options.tasks, options.seed) for kind in TaskName}
    chosen = settings(engine.model.diffusion, options.sweep)
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("evaluating", total=len(chosen) * len(tasks))
        results = evaluate(engine, tasks, chosen, lambda: progress.advance(bar))
    passed = print_default(console, results["default"])
    if options.sweep:
        print_dial(console, results)
    if options.json:
        options.json.write_text(as_json(results, options.seed, options.dtype), encoding="utf-8")
    if options.plot:
        plot_dial(results, options.plot)
    return 0 if passed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.demo.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=CHECKPOINT)
    parser.add_argument("--tasks", type=int, default=200, help="fresh held-out tasks of each kind")
    parser.add_argument("--seed", type=int, default=2, help="of the tasks; training's own checks use 1")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--no-sweep", dest="sweep", action="store_false", help="the default rule only")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--plot", type=Path, help="write the dial as a PNG here (needs matplotlib)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
