"""Draws what the results say: `python -m easel.bench.plots` reads bench/results and writes docs/images."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

GIGABYTE = 1e9
PARTS = ("weights", "slots", "window spare", "pages", "workspace")


def read(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))


def draw_memory(results: Mapping[str, Any], axes: Axes) -> None:
    """What each part takes of a budget, and how many slots that leaves."""
    fits: Sequence[Mapping[str, Any]] = results["fits"]
    names = [f"{fit['budget'] / GIGABYTE:.0f} GB, {fit['weights']}\n{fit['slots']} slots" for fit in fits]
    left = [0.0] * len(fits)
    for part in PARTS:
        sizes = [fit["parts"].get(part, 0) / GIGABYTE for fit in fits]
        axes.barh(names, sizes, left=left, label=part)
        left = [start + size for start, size in zip(left, sizes, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(f"GB; {results['setup']['model']}, a prefix of {results['prefix']:,} tokens a slot")
    axes.legend(ncols=len(PARTS), fontsize=7, loc="lower center", bbox_to_anchor=(0.4, 1.0))


def draw_contest(results: Mapping[str, Any], axes: Axes) -> None:
    """How many times the tokens a second of transformers the engine commits, by processor time."""
    rows: Sequence[Mapping[str, Any]] = results["results"]
    names = [f"canvas {row['shape']['canvas']}\nvocabulary {row['shape']['vocabulary']:,}" for row in rows]
    contests = list(rows[0]["engine_over_transformers"])
    width = 0.8 / len(contests)
    for index, contest in enumerate(contests):
        found = [row["engine_over_transformers"][contest] for row in rows]
        medians = [median for median, _, _ in found]
        below = [median - low for median, low, _ in found]
        above = [high - median for median, _, high in found]
        places = [place + (index - (len(contests) - 1) / 2) * width for place in range(len(rows))]
        axes.bar(places, medians, width, label=contest, yerr=(below, above), capsize=2)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(rows)), names, fontsize=8)
    axes.set_ylabel("× transformers")
    axes.legend(fontsize=8)


def draw_positions(results: Mapping[str, Any], axes: Axes) -> None:
    """Canvas positions a second of a core, beside those of the matrix products alone."""
    figures: Mapping[str, Mapping[str, Sequence[float]]] = results["figures"]
    names = list(figures)
    parts = list(next(iter(figures.values())))
    height = 0.8 / len(parts)
    for index, part in enumerate(parts):
        places = [place + (index - (len(parts) - 1) / 2) * height for place in range(len(names))]
        axes.barh(places, [figures[name][part][0] for name in names], height, label=part)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("canvas positions a second")
    axes.legend(fontsize=8)


PLOTS = {
    "memory": ("memory.json", draw_memory),
    "vs_transformers": ("vs_transformers.json", draw_contest),
    "positions": ("positions.json", draw_positions),
}


def main() -> None:
    options = plot_options("python -m easel.bench.plots", __doc__)
    for name, (source, draw) in PLOTS.items():
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        draw(read(options.results / source), figure.add_subplot())
        options.out.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.out / f"{name}.png", dpi=120)


def plot_options(program: str, description: str | None) -> argparse.Namespace:
    """Where results are read from, and pictures written to."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--results", type=Path, default=Path("bench/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
