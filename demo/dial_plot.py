"""The quality and latency dial as a picture: accuracy against steps per block."""

from pathlib import Path

from matplotlib.figure import Figure

from easel.demo.evaluation import Score
from easel.demo.tasks import TaskName

PANELS = {"threshold": "confidence threshold", "steps": "step budget (static schedule)"}


def plot_dial(results: dict[str, dict[TaskName, Score]], path: Path) -> None:
    """One panel for each dial, one line for each kind of task, points labelled with the setting."""
    figure = Figure(figsize=(11, 4.2), layout="tight")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for axis, (word, title) in zip(axes, PANELS.items(), strict=True):
        chosen = {name.replace(word, "").strip(): scores for name, scores in results.items() if word in name}
        for kind in TaskName:
            points = [(scores[kind].steps_per_block, scores[kind].accuracy) for scores in chosen.values()]
            axis.plot(*zip(*points, strict=True), marker="o", label=kind)
            for label, point in zip(chosen, points, strict=True):
                axis.annotate(label, point, textcoords="offset points", xytext=(3, -9), fontsize=6)
        axis.set_title(title)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("steps per block")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("exact match")
    axes[0].legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
