"""The results of a load as one HTML file: nothing is fetched, nothing is run, light and dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import accumulate
from pathlib import Path
from typing import cast

from easel.bench.harness.figures import Spread
from easel.bench.harness.printed import canvases, cells, doubts, failures, promise, rates
from easel.bench.harness.records import Record
from easel.bench.harness.results import Results
from easel.bench.harness.svg import Mark, Points, Series, plot, thinned

SLICES = 60  # of the load's time

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --dim: #5c6370; --rule: #d9dce1;
  --c0: #1f6feb; --c1: #b4540a; --c2: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16181c; --dim: #9aa3ae;
  --rule: #33373e; --c0: #6cb0ff; --c1: #f0a35e; --c2: #6bd28a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th { font-weight: normal; color: var(--dim); }
th, td { text-align: right; padding: .2rem .5rem; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; } td { font-variant-numeric: tabular-nums; }
.setup td { text-align: left; overflow-wrap: anywhere; }
.setup td:first-child { white-space: nowrap; color: var(--dim); } .scroll, .plot { overflow-x: auto; }
.plot svg { width: 100%; min-width: 34rem; height: auto; } svg text { font-size: 11px; fill: var(--dim); }
.mid { text-anchor: middle; } .end { text-anchor: end; } .grid { stroke: var(--rule); }
polyline { fill: none; stroke-width: 1.6; }
polyline.s0 { stroke: var(--c0); } polyline.s1 { stroke: var(--c1); } polyline.s2 { stroke: var(--c2); }
g.s0, rect.s0 { fill: var(--c0); } g.s1, rect.s1 { fill: var(--c1); } g.s2, rect.s2 { fill: var(--c2); }
g { fill-opacity: .55; }
"""


def write_page(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """The whole document."""
    title = f"{results.setup.get('model', 'a model')} under load"
    told = (*promise(results), *rates(results.figures), *canvases(results))
    troubles = (*failures(results.figures, results.records), *doubts(results))
    body = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in told),
        _latencies(results),
        *(
            f'<h2>{escape(name)}</h2><div class="plot">{drawing}</div>'
            for name, drawing in drawings(results).items()
        ),
        _labels(results),
        "<h2>Trouble and doubt</h2>",
        *(f"<p>{escape(line)}</p>" for line in troubles),
        "<h2>Setup</h2>",
        _setup(results.setup),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def drawings(results: Results) -> dict[str, str]:
    """Title -> SVG."""
    answered = [record for record in results.records if record.answered]
    gaps = [gap for record in answered for gap in record.gaps]
    first = [record.first_block_seconds for record in answered]
    whole = [record.seconds for record in answered]
    over_time = (
        Series(
            "first block", thinned([(one.due, one.first_block_seconds * 1e3) for one in answered]), Mark.DOTS
        ),
        Series("whole answer", thinned([(one.due, one.seconds * 1e3) for one in answered]), Mark.DOTS),
    )
    shares = (
        Series("first block", _shares(first)),
        Series("whole answer", _shares(whole)),
        Series("between blocks", _shares(gaps)),
    )
    found = {
        "Latency over the load": plot("latency", "due after, s", "ms", over_time),
        "Share of requests, or gaps, that were faster": plot(
            "distribution", "ms", "%", [one for one in shares if one.points], most=100.0
        ),
        "Requests under way": plot(
            "concurrency",
            "s",
            "requests",
            (Series("under way", thinned(_under_way(results.records)), Mark.STAIRS),),
        ),
        "Output tokens a second": plot(
            "throughput", "s", "tokens / s", (Series("tokens / s", _rate(results)),)
        ),
    }
    blocks = [block.steps for one in answered if one.canvases is not None for block in one.canvases.blocks]
    if blocks:
        steps = Series("share of blocks", _steps(blocks), Mark.BARS)
        found["Denoising steps of a block"] = plot("steps", "steps", "%", (steps,))
    return found


def _shares(seconds: Sequence[float]) -> Points:
    """(milliseconds, percent of the values up to there)."""
    ordered = sorted(seconds)
    return thinned([(value * 1e3, 100.0 * (rank + 1) / len(ordered)) for rank, value in enumerate(ordered)])


def _under_way(records: Iterable[Record]) -> Points:
    events = sorted([(one.began, 1) for one in records] + [(one.end, -1) for one in records])
    return [
        (at, float(count))
        for (at, _), count in zip(events, accumulate(change for _, change in events), strict=True)
    ]


def _rate(results: Results) -> Points:
    """Tokens count where their block arrived; without blocks they are spread over the chunks."""
    width = max(results.seconds, 1e-9) / SLICES
    totals = [0.0] * SLICES
    for record in results.records:
        for at, tokens in _arrived(record):
            totals[min(SLICES - 1, max(0, int(at / width)))] += tokens / width
    return [((index + 0.5) * width, total) for index, total in enumerate(totals)]


def _arrived(record: Record) -> Iterable[tuple[float, float]]:
    if record.canvases is not None and len(record.canvases.blocks) == len(record.chunks):
        return [
            (at, float(one.tokens)) for at, one in zip(record.chunks, record.canvases.blocks, strict=True)
        ]
    if record.tokens is None or not record.chunks:
        return ()
    return [(at, record.tokens.output / len(record.chunks)) for at in record.chunks]


def _steps(blocks: Sequence[int]) -> Points:
    return [(float(n), 100.0 * blocks.count(n) / len(blocks)) for n in range(1, max(blocks) + 1)]


def _latencies(results: Results) -> str:
    figures = results.figures
    spreads: dict[str, Spread | None] = {
        "first block, ms": figures.first_block,
        "between blocks, ms": figures.gap,
        "whole answer, ms": figures.whole,
    }
    rows = [(label, *cells(spread)) for label, spread in spreads.items() if spread is not None]
    return _table(("", "mean", "p50", "p90", "p99"), rows)


def _labels(results: Results) -> str:
    if not results.labels:
        return ""
    rows = [
        (
            label or "(none)",
            str(one.requests),
            "" if one.first_block is None else f"{one.first_block.p99 * 1e3:,.1f}",
            "" if one.whole is None else f"{one.whole.p99 * 1e3:,.1f}",
            "" if one.canvases is None else f"{one.canvases.tokens_per_forward:.2f}",
            f"{one.right} of {one.judged}" if one.judged else "",
        )
        for label, one in results.labels.items()
    ]
    head = ("", "requests", "first block p99, ms", "whole answer p99, ms", "tokens a forward", "right")
    return "<h2>By kind</h2>" + _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{lines}</table></div>'


def _setup(setup: Mapping[str, object]) -> str:
    """What was not given is left out."""
    lines: dict[str, object] = {}
    for name, value in setup.items():
        lines |= cast(dict[str, object], value) if isinstance(value, dict) else {name: value}
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in lines.items()
        if value not in {None, ""}
    )
    return f'<div class="scroll"><table class="setup">{rows}</table></div>'
