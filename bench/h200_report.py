"""The table that ends the benchmark on an H200, and what its goals came to."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from easel.bench.h200_cells import Line, Status
from easel.bench.h200_loops import best
from easel.bench.report import Figure
from easel.worker.config import LoopKind

DEVICE_LOOPS = (LoopKind.GRAPH.value, LoopKind.WHILE.value)


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached; of a ratio `roofline` is 0."""

    name: str
    cell: str
    aim: float
    roofline: float  # tok/s
    found: float | None = None  # None: not measured

    @property
    def met(self) -> bool | None:
        return None if self.found is None else self.found >= self.aim


def cell_name(model: str, canvases: int, *, float8: bool = False) -> str:
    count = f"{canvases} canvas" + ("es" if canvases > 1 else "")
    return f"{model}{', FP8' if float8 else ''}, {count}"


SDAR_CELL = cell_name("SDAR-1.7B, blocks of 4", 1)
GOALS = (
    Goal("bf16, tok/s at 1 canvas", cell_name("DiffusionGemma", 1), 950.0, 1173.0),
    Goal("bf16, tok/s at 32 canvases", cell_name("DiffusionGemma", 32), 3400.0, 4800.0),
    Goal("FP8, tok/s at 1 canvas", cell_name("DiffusionGemma", 1, float8=True), 1600.0, 2147.0),
    Goal("step of the host's loop over one of the device's", SDAR_CELL, 1.3, 0.0),
)


def goals_met(lines: Sequence[Line], *, measured: bool) -> list[Goal]:
    """The goals with what was found; nothing was if it was not `measured`."""
    return [_found(goal, lines) if measured else goal for goal in GOALS]


def print_lines(console: Console, device: str, lines: Sequence[Line], goals: Sequence[Goal]) -> None:
    """One table: a row for each line, then one for each goal."""
    columns = ("", "ms/step", "open, ms", "tok/s", "of roofline", "idle", "")
    table = Table(*columns, title=f"{device}: median (lowest–highest)")
    cell = ""
    for line in lines:
        if line.cell != cell:
            cell = line.cell
            table.add_section()
            table.add_row(f"[bold]{cell}[/bold]")
        table.add_row(*_row(line))
    table.add_section()
    for goal in goals:
        known = "not measured" if goal.found is None else f"{goal.found:,.2f}"
        verdict = {None: "", True: "met", False: "missed"}[goal.met]
        bound = f", roofline {goal.roofline:,.0f}" if goal.roofline else ""
        table.add_row(
            f"goal: {goal.name}", "", "", known, "", "", f"at least {goal.aim:,.1f}{bound} {verdict}"
        )
    console.print(table)


def _found(goal: Goal, lines: Sequence[Line]) -> Goal:
    mine = [line for line in lines if line.cell == goal.cell]
    if goal.roofline:
        rates = [line.rate.median for line in mine if line.rate is not None]
        return Goal(goal.name, goal.cell, goal.aim, goal.roofline, max(rates, default=None))
    host, device = best(mine, (LoopKind.HOST.value,)), best(mine, DEVICE_LOOPS)
    if host is None or device is None or host.step is None or device.step is None:
        return goal
    return Goal(goal.name, goal.cell, goal.aim, 0.0, host.step.median / device.step.median)


def _row(line: Line) -> tuple[str, ...]:
    if line.status is not Status.MEASURED:
        return (f"  {line.variant}", "", "", "", "", "", f"{line.status.value}: {line.message}")
    shares = (_percent(line.share), _percent(line.idle))
    times = (_figure(line.step, 1e3, 2), _figure(line.opening, 1e3, 2), _figure(line.rate, 1.0, 0))
    return (f"  {line.variant}", *times, *shares, _remarks(line))


def _remarks(line: Line) -> str:
    parts = [f"{name} {seconds * 1e3:.2f}" for name, seconds in line.parts.items()]
    return ", ".join([*parts, *(f"{name} {value:.4g}" for name, value in line.notes.items())])


def _figure(found: Figure | None, factor: float, digits: int) -> str:
    if found is None:
        return ""
    median, low, high = (f"{value * factor:,.{digits}f}" for value in (found.median, found.low, found.high))
    return f"{median} ({low}–{high})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
