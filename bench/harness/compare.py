"""Two loads against each other: the ratio of each figure, with its confidence interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from easel.bench.harness.bootstrap import (
    Interval,
    Sample,
    Statistic,
    mean,
    quantile,
    ratio,
    resample,
    sample_of,
)
from easel.bench.harness.records import Record
from easel.bench.harness.results import Results

Values = Callable[[Record], Sequence[float]]
SLICES = 20  # of a load's time, which rates are resampled by
# What must be alike for a ratio to mean anything.
CIRCUMSTANCES = ("model", "endpoint", "arrivals", "workload", "requests", "seconds", "seed", "options")


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure, and which way is better. A rate is a sum of values a second."""

    name: str
    values: Values
    statistic: Statistic
    less_is_better: bool
    answered_only: bool = True
    rate: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure differs in the second load: 1.0 is not at all."""

    name: str
    ratio: Interval | None
    less_is_better: bool

    @property
    def verdict(self) -> str:
        """Better or worse where the interval leaves no doubt."""
        if self.ratio is None:
            return "not told"
        if self.ratio.low <= 1.0 <= self.ratio.high:
            return "no difference seen"
        return "better" if (self.ratio.value < 1.0) == self.less_is_better else "worse"


def _first_block(record: Record) -> Sequence[float]:
    return (record.first_block_seconds,)


def _gaps(record: Record) -> Sequence[float]:
    return record.gaps


def _whole(record: Record) -> Sequence[float]:
    return (record.seconds,)


def _output(record: Record) -> Sequence[float]:
    return () if record.tokens is None else (float(record.tokens.output),)


def _answered(record: Record) -> Sequence[float]:
    return (float(record.answered),)


def _tokens_per_forward(record: Record) -> Sequence[float]:
    found = record.canvases
    return () if found is None else (sum(block.tokens for block in found.blocks) / max(1, found.steps),)


def _right(record: Record) -> Sequence[float]:
    return () if record.correct is None else (float(record.correct),)


def _failed(record: Record) -> Sequence[float]:
    return (float(not record.answered),)


def _latency(name: str, values: Values) -> list[Metric]:
    metrics = [
        Metric(f"{name}, {label}", values, quantile(share), less_is_better=True)
        for label, share in (("p50", 0.50), ("p90", 0.90), ("p99", 0.99))
    ]
    return [*metrics, Metric(f"{name}, mean", values, mean, less_is_better=True)]


METRICS = (
    *_latency("first block", _first_block),
    *_latency("between blocks", _gaps),
    *_latency("whole answer", _whole),
    Metric("answers / s", _answered, mean, less_is_better=False, rate=True),
    Metric("output tokens / s", _output, mean, less_is_better=False, rate=True),
    Metric("tokens per forward", _tokens_per_forward, mean, less_is_better=False),
    Metric("right answers", _right, mean, less_is_better=False),
    Metric("failed requests", _failed, mean, less_is_better=True, answered_only=False),
)


def compare(first: Results, second: Results, draws: int = 2000, seed: int = 0) -> list[Change]:
    """Each figure of the second load over that of the first."""
    rng = np.random.default_rng(seed)
    changes: list[Change] = []
    for metric in METRICS:
        drawn = [
            resample(_sample(results, metric), metric.statistic, draws, rng) for results in (first, second)
        ]
        changes.append(Change(metric.name, ratio(*drawn), metric.less_is_better))
    return changes


def _sample(results: Results, metric: Metric) -> Sample:
    records = [record for record in results.records if record.answered or not metric.answered_only]
    if metric.rate:
        return _slices(results, records, metric.values)
    numbers = sorted({record.number for record in results.records})
    conversations = {number: index for index, number in enumerate(numbers)}
    pairs = [(conversations[record.number], value) for record in records for value in metric.values(record)]
    return sample_of(pairs, len(conversations))


def _slices(results: Results, records: Sequence[Record], values: Values) -> Sample:
    """A rate per slice of the load's time, by when answers ended: how many came is chance too."""
    width = max(results.seconds, 1e-9) / SLICES
    begin = min((record.due for record in results.records), default=0.0)
    rates = [0.0] * SLICES if any(map(values, records)) else []
    for record in records:
        rates[min(SLICES - 1, int((record.end - begin) / width))] += sum(values(record)) / width
    return sample_of(list(enumerate(rates)), SLICES)


def differences(first: Results, second: Results) -> list[str]:
    """What was not alike, and so may be the reason."""
    return [
        f"{name}: {first.setup.get(name)} and {second.setup.get(name)}"
        for name in CIRCUMSTANCES
        if first.setup.get(name) != second.setup.get(name)
    ]


def print_changes(changes: Sequence[Change], apart: Sequence[str], console: Console) -> None:
    """A line per figure."""
    table = Table("second / first", box=None, pad_edge=False)
    for name in ("ratio", "95 % interval"):
        table.add_column(name, justify="right")
    table.add_column("")
    for change in changes:
        if change.ratio is not None:
            found = change.ratio
            interval = f"{found.low:.3f} – {found.high:.3f}"
            table.add_row(change.name, f"{found.value:.3f}", interval, change.verdict)
    console.print(table)
    for line in apart:
        console.print(f"not alike: {line}", markup=False)
