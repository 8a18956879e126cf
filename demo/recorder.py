"""What a training run leaves behind as it goes: losses, scores and its state."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from easel.demo.run_state import RunState
from easel.demo.scoring import score_all
from easel.demo.tasks import TaskName

METRICS_FILE = "metrics.jsonl"


class Recorder:
    """Writes losses, scores and states at their intervals."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._history: list[dict[str, float]] = []
        self._since = time.monotonic()

    def after_step(self, run: RunState, figures: dict[str, float]) -> None:
        self._history.append(figures)
        if run.step % self._options.log_every == 0:
            seconds = (time.monotonic() - self._since) / len(self._history)
            _report(self._options.out, run.step, {"seconds_per_step": seconds, **_means(self._history)})
            self._history.clear()
            self._since = time.monotonic()
        if run.step % self._options.save_every == 0:
            run.save(self._options.out)
        if run.step % self._options.evaluate_every == 0:
            scores = score_all(run.average, self._options.evaluate_tasks, seed=1)
            _report(self._options.out, run.step, scores)
            self._since = time.monotonic()


def _means(history: list[dict[str, float]]) -> dict[str, float]:
    """Over the steps that had a masked position of the task."""
    return {
        f"loss/{name}": statistics.fmean(row[name] for row in history if row[name] == row[name])
        for name in TaskName
    }


def _report(folder: Path, step: int, figures: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / METRICS_FILE).open("a") as file:
        file.write(json.dumps({"step": step, **figures}) + "\n")
    print(f"step {step}  " + "  ".join(f"{key} {value:.4f}" for key, value in figures.items()), flush=True)
