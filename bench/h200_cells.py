"""Cells of a long benchmark: each fails, or runs out of time, for itself, and none is left out silently."""

import gc
import signal
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from types import FrameType

import torch

from easel.bench.report import Figure

REMIND_SECONDS = 5.0  # after which a cell that goes on all the same is interrupted again


class Status(StrEnum):
    """What became of a measurement."""

    MEASURED = "measured"
    FAILED = "failed"
    SKIPPED = "skipped"


class OutOfTime(Exception):
    """A cell took longer than it may."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a variant of a cell."""

    cell: str
    variant: str = ""
    status: Status = Status.MEASURED
    message: str = ""  # why there is nothing
    canvases: int = 0
    steps: int = 0  # of each canvas
    tokens: int = 0  # that each round committed
    step: Figure | None = None  # seconds of a reuse step
    opening: Figure | None = None  # seconds of the forward that commits a block and opens the next
    rate: Figure | None = None  # tokens a second of whole canvases
    floor: float | None = None  # seconds of a reuse step at best
    busy: float | None = None  # seconds of a reuse step that never waits for the host
    parts: Mapping[str, float] = field(default_factory=dict[str, float])  # seconds of each part of a step
    notes: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def share(self) -> float | None:
        """Of the roofline that a reuse step reaches."""
        return None if self.floor is None or self.step is None else self.floor / self.step.median

    @property
    def idle(self) -> float | None:
        """Part of a reuse step in which the device waits."""
        return (
            None if self.busy is None or self.step is None else max(0.0, 1.0 - self.busy / self.step.median)
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """Some lines that are measured together."""

    name: str
    least: float  # seconds it takes at least: with less left it is skipped
    most: float  # seconds after which it is interrupted
    run: Callable[[float], Sequence[Line]]  # given the seconds it has; variants take turns in it


def run_cells(
    cells: Iterable[Cell], seconds: float, clock: Callable[[], float], done: Callable[[Line], None]
) -> list[Line]:
    """Run what fits into `seconds`; `done` hears of each line at once.

    Raises nothing that a cell raises: a cell is a boundary like that of a process. What fails on one
    machine (memory, a compiler, a package that is not there) must not cost the other figures.
    """
    until, lines = clock() + seconds, list[Line]()
    for cell in cells:
        left = until - clock()
        if left < cell.least:
            needs = f"needs {cell.least:.0f} s, and {max(0.0, left):.0f} s are left"
            found: Sequence[Line] = [Line(cell.name, status=Status.SKIPPED, message=needs)]
        else:
            found = _isolated(cell, min(left, cell.most))
        for line in found:
            done(line)
        lines.extend(found)
        gc.collect()  # what a cell made is gone before the next one begins
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return lines


def attempted(cell: str, variant: str, run: Callable[[], Line]) -> Line:
    """A line of its own, or one that says why there is none."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001  it becomes a line of the report; see run_cells
        return failed(cell, variant, error)


def failed(cell: str, variant: str, error: Exception) -> Line:
    """A line that says what went wrong."""
    first = next(iter(str(error).splitlines()), "")
    return Line(cell, variant, Status.FAILED, f"{type(error).__name__}: {first}")


def _isolated(cell: Cell, seconds: float) -> Sequence[Line]:
    try:
        with interrupted_after(seconds):
            return cell.run(seconds)
    except Exception as error:  # noqa: BLE001  it becomes a line of the report; see run_cells
        return [failed(cell.name, "", error)]


@contextmanager
def interrupted_after(seconds: float) -> Generator[None]:
    """Raise OutOfTime in the block, and again from time to time should somebody catch it.

    By a signal, so in the main thread only. A call into a library is interrupted when it returns.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime(f"interrupted after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, REMIND_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
