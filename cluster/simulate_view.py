"""Replays a recorded trace in the simulator, compares the two, and prints what `easel simulate` finds."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from easel.cluster.errors import ConfigError
from easel.scheduler.calibration import Calibration, calibrate, replay
from easel.scheduler.sim_report import Summary, summarise
from easel.scheduler.trace import RequestTrace, Trace, TraceHeader, read_trace

SEEDS = 5  # of the noise; the median is shown
# What the simulator is judged by, and what is shown for the eye.
JUDGED = ("tokens_per_second", "first_block_p99", "finish_p99")
SHOWN = {
    "tokens_per_second": "output tokens / s",
    "first_block_p50": "first block, p50",
    "first_block_p99": "first block, p99",
    "gap_p50": "between blocks, p50",
    "gap_p99": "between blocks, p99",
    "finish_p50": "whole answer, p50",
    "finish_p99": "whole answer, p99",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same requests, recorded and simulated."""

    recorded: Summary
    simulated: Summary

    def error(self, name: str) -> float:
        """(simulated - recorded) / recorded of one figure."""
        recorded = self.recorded.figure(name)
        return (self.simulated.figure(name) - recorded) / recorded if recorded else 0.0

    @property
    def worst(self) -> float:
        """The largest error of those the simulator is judged by, either way."""
        return max(abs(self.error(name)) for name in JUDGED)


def load_trace(path: Path) -> Trace:
    """Raises ConfigError or BrokenTrace."""
    if not path.is_file():
        raise ConfigError(
            "--trace", f"{path} is not a file; record one with `easel bench URL --record FILE`."
        )
    with path.open(encoding="utf-8") as lines:
        return read_trace(lines)


def halves(trace: Trace) -> tuple[Sequence[RequestTrace], Sequence[RequestTrace]]:
    """The requests that came first, and the others."""
    middle = len(trace.requests) // 2
    return trace.requests[:middle], trace.requests[middle:]


def compare(
    header: TraceHeader, requests: Sequence[RequestTrace], found: Calibration, seeds: int = SEEDS
) -> Comparison:
    """Throughput counts until the last request has arrived: the tail would measure that one alone."""
    simulated = [
        _until_last_arrival(replay(header, requests, replace(found, seed=seed)).requests)
        for seed in range(seeds)
    ]
    return Comparison(_until_last_arrival(requests), _median(simulated))


def simulate_trace(
    trace: Trace, console: Console, replicas: int | None = None, *, fit_all: bool = False
) -> Comparison:
    """Calibrates on the first half and simulates the second, or both on all; prints and returns it.

    Another number of replicas than recorded is a question, whose answer has no error.
    """
    fitted_to, held_out = (trace.requests, trace.requests) if fit_all else halves(trace)
    if not fitted_to:
        raise ConfigError("--trace", "it holds one request; calibrating takes two or more.")
    found = calibrate(trace, fitted_to)
    header = trace.header if replicas is None else replace(trace.header, replicas=replicas)
    comparison = compare(header, held_out, found)
    _print_calibration(trace, found, len(fitted_to), console)
    title = f"{len(held_out)} requests that were {'' if fit_all else 'not '}calibrated on"
    if not fit_all:
        drift = _step_seconds(held_out) / _step_seconds(fitted_to) - 1.0
        console.print(f"recorded steps took {drift:+.0%} from the first half to the second")
    asked = None if replicas is None else f"simulated with {replicas} replicas"
    print_comparison(comparison, title, console, asked)
    return comparison


def print_comparison(comparison: Comparison, title: str, console: Console, asked: str | None = None) -> None:
    """A line per figure; with `asked`, what was simulated is another cluster than the recorded one."""
    table = Table("", title=title, box=None, pad_edge=False)
    for name in ("recorded", asked or "simulated", "change" if asked else "error"):
        table.add_column(name, justify="right")
    for name, label in SHOWN.items():
        judged = " *" if name in JUDGED and not asked else ""
        cells = [_cell(name, one.figure(name)) for one in (comparison.recorded, comparison.simulated)]
        table.add_row(label + judged, *cells, f"{comparison.error(name):+.1%}")
    console.print(table)
    if not asked:
        console.print(f"* largest error of those: {comparison.worst:.1%}")


def _print_calibration(trace: Trace, found: Calibration, count: int, console: Console) -> None:
    header, cost = trace.header, found.cost
    fitted = "fitted by its replicas" if header.cost else "not in the trace: a guess"
    console.print(
        f"{header.model or 'a model'} on {header.replicas} replicas of {header.slots} slots, "
        f"blocks of {header.block_length}; {len(trace.requests)} requests\n"
        f"step cost, {fitted}: {cost.constant * 1e3:.3g} ms + {cost.per_token * 1e6:.3g} µs a token + "
        f"{cost.per_pair * 1e9:.3g} ns a query-key pair + {cost.per_head_row * 1e6:.3g} µs a head row\n"
        f"calibrated on {count} requests: steps take {found.step_factor:.2f} × that, "
        f"a request {found.request_seconds * 1e3:.1f} ms besides"
    )


def _step_seconds(requests: Sequence[RequestTrace]) -> float:
    """Of a canvas, on average: what drifts when something else uses the machine."""
    blocks = [block for request in requests for block in request.blocks]
    return sum(block.seconds for block in blocks) / sum(block.steps for block in blocks)


def _until_last_arrival(requests: Sequence[RequestTrace]) -> Summary:
    first, last = (pick(request.arrival for request in requests) for pick in (min, max))
    whole = summarise(requests)
    busy = summarise(requests, since=first, until=last) if last > first else whole
    return replace(whole, tokens_per_second=busy.tokens_per_second)


def _median(summaries: Sequence[Summary]) -> Summary:
    names = [field.name for field in fields(Summary)]
    values = {name: median(summary.figure(name) for summary in summaries) for name in names}
    return Summary(requests=int(values.pop("requests")), **values)


def _cell(name: str, value: float) -> str:
    return f"{value:,.0f}" if name == "tokens_per_second" else f"{value * 1e3:,.0f} ms"
