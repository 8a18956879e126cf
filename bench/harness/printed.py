"""The results of a load, as `easel bench` prints them at its end."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from easel.bench.harness.figures import Figures, Spread
from easel.bench.harness.records import Record
from easel.bench.harness.results import Results


def print_results(results: Results, console: Console) -> None:
    """Latencies, rates, canvases, errors, the promise, and what casts doubt on them."""
    figures = results.figures
    print_latencies(figures, console)
    for line in [*rates(figures), *canvases(results), *failures(figures, results.records)]:
        console.print(line, markup=False)
    if results.labels:
        _print_labels(results.labels, console)
    for line in [*promise(results), *doubts(results)]:
        console.print(line, markup=False)


def print_latencies(figures: Figures, console: Console) -> None:
    """A line per latency."""
    table = Table("", box=None, pad_edge=False)
    for name in ("mean", "p50", "p90", "p99"):
        table.add_column(name, justify="right")
    rows = {
        "first block, ms": figures.first_block,
        "between blocks, ms": figures.gap,
        "whole answer, ms": figures.whole,
    }
    for label, spread in rows.items():
        if spread is not None:
            table.add_row(label, *cells(spread))
    console.print(table)


def cells(spread: Spread) -> list[str]:
    """Milliseconds: mean, p50, p90, p99."""
    return [f"{value * 1e3:,.1f}" for value in (spread.mean, spread.p50, spread.p90, spread.p99)]


def rates(figures: Figures) -> list[str]:
    """Throughput and right answers."""
    tokens = figures.output_tokens_per_second
    told = "no usage told" if tokens is None else f"{tokens:,.0f} output tokens / s"
    answered = f"{figures.answered} of {figures.requests} requests answered in {figures.seconds:,.1f} s"
    lines = [f"{answered}: {figures.requests_per_second:,.2f} / s; {told}"]
    if figures.prompt_tokens:
        cached = (figures.cached_tokens or 0) / figures.prompt_tokens
        lines.append(f"{figures.prompt_tokens:,} prompt tokens, {cached:.0%} of them cached")
    if figures.judged:
        lines.append(f"{figures.right} of {figures.judged} answers are right")
    return lines


def canvases(results: Results) -> list[str]:
    """From the answers where they tell, else from the server's counters."""
    found, server = results.figures.canvases, results.server
    if found is not None:
        steps = f"{found.blocks:,} blocks, {found.steps_per_block:.2f} steps a block"
        return [f"{steps}, {found.tokens_per_forward:.2f} tokens a forward"]
    if server is None:
        return []
    steps = f"by the server's counters, whoever asked: {server.steps:,} forwards of a canvas"
    return [f"{steps}, {server.tokens_per_forward:.2f} tokens a forward"]


def failures(figures: Figures, records: Sequence[Record]) -> list[str]:
    """Errors by kind, with the first of each."""
    lines = [f"{figures.refusals} refusals (429)"] if figures.refusals else []
    for kind, count in sorted(figures.errors.items(), key=lambda item: -item[1]):
        first = next(record for record in records if record.error == kind)
        lines.append(f"{count} requests failed: {kind}; the first: {first.detail[:160]}")
    return lines


def promise(results: Results) -> list[str]:
    """Whether the promise was kept."""
    found = results.verdict
    if found is None:
        return []
    kept = f"{found.share:.1%} of requests kept {found.slo} ({found.requests_per_second:,.2f} / s)"
    return [f"goodput: {kept}; {found.wanted:.1%} wanted: {'met' if found.met else 'MISSED'}"]


def doubts(results: Results) -> list[str]:
    """What the reader should know before believing the figures."""
    load = results.generator
    lines = [
        f"generator: {load.cpu_share:.0%} of a core, late by {load.late_p99_seconds * 1e3:.1f} ms at p99"
    ]
    if load.saturated:
        lines.append(
            "the generator could not keep up (too much load, or a busy machine): times are partly its own"
        )
    if results.interrupted:
        lines.append("interrupted: requests under way were dropped")
    return [*lines, *results.notes]


def _print_labels(labels: dict[str, Figures], console: Console) -> None:
    table = Table("", box=None, pad_edge=False)
    for name in ("requests", "first block p50", "p99", "gap p99", "answer p99", "tokens / forward", "right"):
        table.add_column(name, justify="right")
    for label, figures in labels.items():
        judged = f"{figures.right}/{figures.judged}" if figures.judged else ""
        forward = "" if figures.canvases is None else f"{figures.canvases.tokens_per_forward:.2f}"
        first, gap, whole = figures.first_block, figures.gap, figures.whole
        table.add_row(
            label or "(none)",
            str(figures.requests),
            _ms(None if first is None else first.p50),
            _ms(None if first is None else first.p99),
            _ms(None if gap is None else gap.p99),
            _ms(None if whole is None else whole.p99),
            forward,
            judged,
        )
    console.print(table)


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:,.1f}"
