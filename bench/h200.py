"""What an H200 makes of it, in eight minutes: `python -m easel.bench.h200`.

DiffusionGemma-26B-A4B's shapes with random weights, in bfloat16 and FP8, against the roofline and
against transformers' `generate` on the same weights; SDAR-1.7B's, looped over by the host, by CUDA
graphs and by a WHILE node; the embedded model in persistent launches. Every canvas takes a fixed number
of steps, and opens in the forward that commits the block before it.

`--dry-run` goes through the same lines on a CPU in seconds, with tiny shapes; its times mean nothing.
bfloat16 comes before FP8, which replaces it in memory; other variants take turns.
"""

import argparse
import faulthandler
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from easel.bench.h200_cells import Line, run_cells
from easel.bench.h200_report import goals_met, print_lines
from easel.bench.h200_rerun import ragged_on_cpu
from easel.bench.h200_work import Session, all_cells, open_session
from easel.bench.report import Setup, describe_setup, print_setup, write_json

RESULTS = Path("bench/results/h200.json")
GRACE_SECONDS = 40.0  # after which the process ends: of a device that hangs nothing more is heard


@dataclass(slots=True)
class Journal:
    """Lines as they come. The JSON file is written with each: a device that hangs costs only the rest."""

    session: Session
    setup: Setup
    out: Path | None
    console: Console
    started: float
    lines: list[Line] = field(default_factory=list[Line])

    def add(self, line: Line) -> None:
        self.lines.append(line)
        self.console.print(f"{line.cell}: {line.variant} {line.status.value}")
        if self.out is not None:
            write_json(self.out, self.setup, self.results())

    def results(self) -> dict[str, object]:
        session = self.session
        goals = goals_met(self.lines, measured=not session.scale.tiny)
        return {
            "device": session.device_name,
            "dry": session.scale.tiny,
            "seconds": session.clock() - self.started,
            "scale": {**asdict(session.scale), "dtype": str(session.scale.dtype)},
            "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
            "lines": [{**asdict(line), "share": line.share, "idle": line.idle} for line in self.lines],
        }


def run(
    session: Session, seconds: float, out: Path | None, console: Console, only: str = ""
) -> Sequence[Line]:
    """Measure the cells whose name holds `only`, and end with the table."""
    setup = describe_setup("random weights", str(session.scale.dtype), torch.get_num_threads())
    print_setup(console, setup)
    journal = Journal(session, setup, out, console, session.clock())
    with ExitStack() as stack:
        if session.device.type != "cuda":
            stack.enter_context(ragged_on_cpu())
        cells = [cell for cell in all_cells(session) if only in cell.name]
        run_cells(cells, seconds, session.clock, journal.add)
    session.drop()
    goals = goals_met(journal.lines, measured=not session.scale.tiny)
    print_lines(console, session.device_name, journal.lines, goals)
    return journal.lines


def main() -> None:
    options = _options()
    session = open_session(dry=options.dry_run)
    out = options.out or (None if options.dry_run else RESULTS)
    faulthandler.dump_traceback_later(options.seconds + GRACE_SECONDS, exit=True)
    run(session, options.seconds, out, Console(), options.only)
    faulthandler.cancel_dump_traceback_later()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.h200", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--seconds", type=float, default=420.0, help="what fits no more is skipped")
    parser.add_argument("--only", default="", help="cells whose name holds this, like SDAR or FP8")
    parser.add_argument("--out", type=Path, help=f"JSON file; {RESULTS}, and none of a dry run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
