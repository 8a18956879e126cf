"""What is shown while a load runs, drawn anew a few times a second; nothing where nobody watches."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from easel.bench.harness.figures import Spread, spread_of
from easel.bench.harness.load import Load
from easel.bench.harness.records import Record

RECENT = 500  # requests that the live latencies are of
REFRESH_SECONDS = 0.25
WINDOW_SECONDS = 5.0  # of the live token rate


@dataclass(slots=True)
class Progress:
    """Adds up records as they come."""

    recent: deque[Record] = field(default_factory=lambda: deque[Record](maxlen=RECENT))
    answered: int = 0
    right: int = 0
    judged: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    refusals: int = 0
    _tokens: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])  # (end, tokens)

    def take(self, record: Record) -> None:
        self.refusals += record.refusals
        if not record.answered:
            self.errors[record.error] += 1
            return
        self.answered += 1
        self.recent.append(record)
        self.judged += record.correct is not None
        self.right += bool(record.correct)
        if record.tokens is not None:
            self._tokens.append((record.end, record.tokens.output))

    @property
    def done(self) -> int:
        return self.answered + sum(self.errors.values())

    def tokens_per_second(self, now: float) -> float:
        """Of answers that ended in the last few seconds."""
        while self._tokens and self._tokens[0][0] < now - WINDOW_SECONDS:
            self._tokens.popleft()
        return sum(tokens for _, tokens in self._tokens) / max(1e-9, min(now, WINDOW_SECONDS))


def frame(progress: Progress, load: Load, now: float, cpu_share: float) -> RenderableType:
    """One picture."""
    head = Text.assemble(
        (f"{now:6.1f} s", "bold"),
        f"   {load.under_way} under way   {progress.answered} answered   ",
        (f"{sum(progress.errors.values())} failed", "red" if progress.errors else "dim"),
        ("   " + f"{progress.refusals} refusals", "yellow" if progress.refusals else "dim"),
    )
    return Group(head, _bar(progress, load, now), _table(progress, now), _foot(progress, cpu_share))


def _bar(progress: Progress, load: Load, now: float) -> RenderableType:
    if load.plan.requests is not None:
        return ProgressBar(total=load.plan.requests, completed=progress.done, width=60)
    return ProgressBar(total=load.plan.seconds, completed=min(now, load.plan.seconds), width=60)


def _table(progress: Progress, now: float) -> Table:
    table = Table("", "p50", "p90", "p99", box=None, pad_edge=False)
    records = list(progress.recent)
    _row(table, "first block, ms", spread_of(record.first_block_seconds for record in records))
    _row(table, "between blocks, ms", spread_of(gap for record in records for gap in record.gaps))
    _row(table, "whole answer, ms", spread_of(record.seconds for record in records))
    table.add_row("output tokens / s", f"{progress.tokens_per_second(now):,.0f}")
    return table


def _row(table: Table, label: str, spread: Spread | None) -> None:
    if spread is not None:
        table.add_row(label, *(f"{value * 1e3:,.1f}" for value in (spread.p50, spread.p90, spread.p99)))


def _foot(progress: Progress, cpu_share: float) -> Text:
    errors = ", ".join(f"{kind}: {count}" for kind, count in progress.errors.items())
    right = f"{progress.right} of {progress.judged} right   " if progress.judged else ""
    return Text(f"{right}generator {cpu_share:.0%} of a core   {errors}", style="dim")


async def watch(load: Load, progress: Progress, console: Console, cpu_share: Callable[[], float]) -> None:
    """Run the load, and show it where the console is a terminal."""
    if not console.is_terminal:
        await load.run()
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:

        async def draw() -> None:
            while True:
                live.update(frame(progress, load, load.clock.now(), cpu_share()), refresh=True)
                await asyncio.sleep(REFRESH_SECONDS)

        drawing = asyncio.create_task(draw())
        try:
            await load.run()
        finally:
            drawing.cancel()
