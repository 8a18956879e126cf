"""What partial steps cost in right answers and save in time: `python -m easel.bench.partial`.

The demo model answers the same held-out tasks with every step exact, and with a full step only
every N steps; between them a step computes the positions that are undecided or were decided in
the step before, and reads the others' keys and values as they were. Time is the process's own
processor time, of one thread: what else the machine does is left out.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from easel.bench.report import Figure, alternate, describe_setup, print_setup, write_json
from easel.demo.evaluation import Score
from easel.demo.scoring import held_out
from easel.demo.tasks import Task, TaskName, check
from easel.demo.tokenizer import decode, encode_prompt
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import CommitRule, DiffusionParams, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine

PERIODS = (0, 1, 2, 4, 8, 32)  # 0: every step is exact
THRESHOLDS = (0.5, 0.9, 0.99)
BUDGETS = (4, 8, 32)  # steps a block, each deciding the same number of positions


@dataclass(slots=True)
class Run:
    """One setting over all rounds: how many answers were right, and how long they took."""

    engine: Engine
    diffusion: DiffusionParams
    tasks: Sequence[Task]
    score: Score
    rounds: int = 0

    def once(self) -> float:
        """Processor seconds for all tasks. The tenant keeps runs from finding each other's prefixes."""
        tenant = f"{self.diffusion}/{self.rounds}"
        self.rounds += 1
        for index, task in enumerate(self.tasks):
            sampling = SamplingParams(max_tokens=self.engine.model.max_output_tokens)
            prompt = tuple(encode_prompt(task.prompt))
            self.engine.submit(Request(str(index), prompt, sampling, self.diffusion, tenant=tenant))
        started = time.process_time()
        answers: list[list[int]] = [[] for _ in self.tasks]
        blocks = steps = 0
        while self.engine.has_work:
            for event in self.engine.step():
                if isinstance(event, BlockEvent):
                    answers[int(event.request_id)] += event.tokens
                    blocks, steps = blocks + 1, steps + event.steps
        seconds = time.process_time() - started
        right = sum(
            check(task.prompt, decode(answer)) for task, answer in zip(self.tasks, answers, strict=True)
        )
        self.score = Score(len(self.tasks), right, blocks, steps)
        return seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """A setting's score, and its processor seconds per task."""

    score: Score
    seconds: Figure


def measure(
    engine: Engine, base: DiffusionParams, tasks: Sequence[Task], rounds: int, advance: Callable[[], None]
) -> dict[int, Outcome]:
    """By period. All periods of one commit rule take turns, so that drift touches all alike."""
    runs = {
        period: Run(engine, replace(base, rebuild_every=period), tasks, Score(0, 0, 0, 0))
        for period in PERIODS
    }

    def timed(run: Run) -> Callable[[], float]:
        def once() -> float:
            advance()
            return run.once() / len(tasks)

        return once

    figures = alternate({str(period): timed(run) for period, run in runs.items()}, rounds)
    return {period: Outcome(run.score, figures[str(period)]) for period, run in runs.items()}


def rules(default: DiffusionParams) -> dict[str, DiffusionParams]:
    """The commit rules compared: thresholds, and fixed numbers of steps."""
    chosen = {f"threshold {value}": replace(default, threshold=value) for value in THRESHOLDS}
    static = replace(default, commit_rule=CommitRule.STATIC_SCHEDULE)
    return chosen | {f"{steps} steps": replace(static, steps=steps) for steps in BUDGETS}


def print_results(console: Console, results: dict[str, dict[int, Outcome]]) -> None:
    names = ["exact" if period == 0 else f"every {period}" for period in PERIODS]
    table = Table("", *names, title="Right answers, steps a block, time against exact (spread of the time)")
    for rule, outcomes in results.items():
        exact = outcomes[0].seconds.median
        cells = [
            f"{o.score.accuracy:.1%}  {o.score.steps_per_block:.2f}\n"
            f"{o.seconds.median / exact:.2f} ({o.seconds.low / exact:.2f}–{o.seconds.high / exact:.2f})"
            for o in outcomes.values()
        ]
        table.add_row(rule, *cells)
    console.print(table)


def as_rows(results: dict[str, dict[int, Outcome]]) -> dict[str, object]:
    return {
        rule: {
            str(period): {
                "right": round(o.score.accuracy, 4),
                "steps_per_block": round(o.score.steps_per_block, 3),
                "milliseconds_per_task": round(1e3 * o.seconds.median, 3),
                "time_against_exact": round(o.seconds.median / outcomes[0].seconds.median, 3),
            }
            for period, o in outcomes.items()
        }
        for rule, outcomes in results.items()
    }


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    console = Console()
    setup = describe_setup(options.model.name, options.dtype, options.threads)
    print_setup(console, setup)
    engine = load_engine(options.model, EngineConfig(slots=8, dtype=options.dtype, partial=True))
    tasks = [task for kind in TaskName for task in held_out(kind, options.tasks, options.seed)]
    chosen = rules(engine.model.diffusion)
    results: dict[str, dict[int, Outcome]] = {}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=len(chosen) * len(PERIODS) * options.rounds)
        for name, diffusion in chosen.items():
            results[name] = measure(engine, diffusion, tasks, options.rounds, lambda: progress.advance(bar))
    print_results(console, results)
    write_json(options.out, setup, {"tasks": len(tasks), "rules": as_rows(results)})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.partial", description=__doc__)
    demo = Path(__file__).parents[1] / "demo" / "checkpoint"
    parser.add_argument("--model", type=Path, default=demo)
    parser.add_argument("--tasks", type=int, default=60, help="of each kind")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path("bench/results/partial.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
