"""What every benchmark prints and writes: the setup, alternating rounds, medians and spread."""

import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from easel.worker.device import cpu_features, usable_cores

Name = TypeVar("Name")  # of a variant


@dataclass(frozen=True, slots=True)
class Setup:
    """The circumstances a figure depends on."""

    date: str
    machine: str
    cores: int
    torch: str
    threads: int
    dtype: str
    model: str


def describe_setup(model: str, dtype: str, threads: int) -> Setup:
    wide = sorted(
        feature for feature in cpu_features() if feature in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    )
    return Setup(
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{platform.machine()} ({', '.join(wide) or 'no wide vectors'})",
        cores=usable_cores(),
        torch=torch.__version__,
        threads=threads,
        dtype=dtype,
        model=model,
    )


@dataclass(frozen=True, slots=True)
class Figure:
    """One variant's result: the median of its rounds, and the lowest and highest."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]


def alternate(variants: Mapping[Name, Callable[[], float]], rounds: int) -> dict[Name, Figure]:
    """Run the variants in turn, A/B/A/B, so that drift of the machine touches all alike."""
    results: dict[Name, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            results[name].append(run())
    return {name: figure(values) for name, values in results.items()}


def figure(values: Sequence[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values), tuple(values))


def print_setup(console: Console, setup: Setup) -> None:
    console.print("  ".join(f"[dim]{name}[/dim] {value}" for name, value in asdict(setup).items()))


def print_figures(
    console: Console, title: str, unit: str, rows: Mapping[str, Mapping[str, Figure]], places: int = 1
) -> None:
    """One line per case, one column per variant, with so many decimal places."""
    table = Table("", *next(iter(rows.values())), title=f"{title} ({unit}; median, lowest–highest)")
    for case, figures in rows.items():
        cells = [
            f"{f.median:,.{places}f} ({f.low:,.{places}f}–{f.high:,.{places}f})" for f in figures.values()
        ]
        table.add_row(case, *cells)
    console.print(table)


def write_json(path: Path, setup: Setup, results: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"setup": asdict(setup), **results}, indent=2) + "\n", encoding="utf-8")
