"""Draws a cluster in a terminal: its replicas with their last steps, faults, recent requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from easel.cluster.top_client import Answer, Cluster, Fault, Replica, Step

BARS = "▁▂▃▄▅▆▇█"
FULL, EMPTY = "█", "░"
METER, WIDE = 10, 110  # characters of a meter, where the terminal is that wide
FAULTS, ANSWERS = 5, 12  # shown
PHASES = (  # least share of refresh among a step's tokens, style, meaning
    (0.75, "magenta", "refresh"),
    (0.1, "yellow", "both"),
    (0.0, "cyan", "reuse"),
)
STATE_STYLES = {
    "serving": "green",
    "draining": "yellow",
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "cancelled": "dim",
    "ok": "green",
    "degraded": "red",
    "off": "dim",
}


@dataclass(frozen=True, slots=True)
class Strip:
    """The last steps, one character each: as high as they took time, coloured by phase."""

    steps: Sequence[Step]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.steps[-options.max_width :]
        tallest = tallest_of([step.actual_ms for step in shown])
        text = Text(no_wrap=True)
        for step in shown:
            text.append(bar_of(step.actual_ms, tallest), style_of(step))
        yield text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(12, options.max_width), max(12, min(len(self.steps), options.max_width)))


@dataclass(frozen=True, slots=True)
class TopView:
    """The whole picture. `problem` is why it is not newer; `rates` are tokens a second by replica."""

    cluster: Cluster
    url: str
    rates: dict[str, float]
    problem: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cluster = self.cluster
        meters = METER if options.max_width >= WIDE else 0
        parts = [self._head(), Text(), _replicas(cluster.replicas, self.rates, meters)]
        parts += [Text(), _steps(cluster.replicas), _legend()]
        if cluster.faults:
            parts += [Text(), _faults(cluster.faults[-FAULTS:])]
        if cluster.answers:
            parts += [Text(), _answers(cluster.answers[:ANSWERS])]
        yield Group(*parts)

    def _head(self) -> Text:
        cluster = self.cluster
        text = Text.assemble(
            (cluster.model, "bold"),
            f" at {self.url}   {clock_of(cluster.time)}   journal ",
            (cluster.journal, _style(cluster.journal)),
            f"   {cluster.waiting} waiting   {len(cluster.replicas)} replicas, ",
            (f"{cluster.lost_replicas} lost", "red" if cluster.lost_replicas else ""),
        )
        return text.append(f"\n{self.problem}", "red") if self.problem else text


def bar_of(value: float, tallest: float) -> str:
    """One of eight heights."""
    share = value / tallest if tallest > 0.0 else 0.0
    return BARS[min(len(BARS) - 1, int(share * len(BARS)))]


def tallest_of(values: Sequence[float]) -> float:
    """What a full bar stands for: one value in twenty is longer, so that no hiccup flattens the rest."""
    ordered = sorted(values)
    return ordered[ceil(len(ordered) * 0.95) - 1] if ordered else 0.0


def style_of(step: Step) -> str:
    """The colour of its phase."""
    return next(style for least, style, _ in PHASES if step.refresh_share >= least)


def meter(used: int, whole: int, width: int) -> Text:
    """A bar so wide, and the two numbers."""
    filled = 0 if whole <= 0 else round(width * min(used, whole) / whole)
    style = "red" if used >= whole > 0 else "green"
    text = Text.assemble((FULL * filled, style), (EMPTY * (width - filled), "dim"))
    return text.append(f" {used}/{whole}".strip() if not width else f" {used}/{whole}")


def clock_of(seconds: float) -> str:
    """Unix seconds as this machine's time of day."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


def _replicas(replicas: Sequence[Replica], rates: dict[str, float], meters: int) -> Table:
    table = _table("replica", "state", "slots", "pages", "waiting", "policy", "tokens/s", "steps/block")
    for replica in replicas:
        rate = rates.get(replica.id)
        table.add_row(
            replica.id,
            Text(replica.state, _style(replica.state)),
            meter(replica.slots_used, replica.slots, meters),
            meter(replica.pages - replica.pages_available, replica.pages, meters),
            str(replica.waiting),
            f"{replica.policy_epoch}, {replica.policy_age_seconds:.1f} s",
            "–" if rate is None else f"{rate:.0f}",
            f"{replica.steps_per_block:.1f}",
        )
    return table


def _steps(replicas: Sequence[Replica]) -> Table:
    table = _table("replica", "ms a step", "predicted", "refresh")
    table.expand = True
    table.add_column("last steps, newest at the right", ratio=1, no_wrap=True)
    for replica in replicas:
        table.add_row(replica.id, *_times(replica.strip), Strip(replica.strip))
    return table


def _times(strip: Sequence[Step]) -> tuple[str, str, str]:
    """Means over the strip: milliseconds, as predicted, and the share of refresh in the tokens."""
    if not strip:
        return "–", "–", "–"
    tokens = sum(step.refresh + step.reuse for step in strip)
    refresh = sum(step.refresh for step in strip) / max(1, tokens)
    actual = sum(step.actual_ms for step in strip) / len(strip)
    predicted = sum(step.predicted_ms for step in strip) / len(strip)
    return f"{actual:.1f}", f"{predicted:.1f}", f"{refresh:.0%}"


def _legend() -> Text:
    text = Text.assemble(("a bar is one step, as high as it took time: ", "dim"))
    for _, style, meaning in reversed(PHASES):
        text.append(f"{FULL} ", style).append(f"{meaning}  ", "dim")
    return text


def _faults(faults: Sequence[Fault]) -> Table:
    table = _table("fault at", "what", "replica")
    for fault in reversed(faults):
        table.add_row(clock_of(fault.time), fault.kind.replace("_", " "), fault.replica or "")
    return table


def _answers(answers: Sequence[Answer]) -> Table:
    table = _table("request", "state", "began")
    for name in ("seconds", "blocks", "tokens", "steps"):
        table.add_column(name, justify="right")
    table.add_column("replica", no_wrap=True)
    for answer in answers:
        table.add_row(
            answer.id,
            Text(answer.state, _style(answer.state)),
            clock_of(answer.began),
            f"{answer.seconds:.2f}",
            str(answer.blocks),
            str(answer.tokens),
            str(answer.steps),
            answer.replica or "–",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _style(word: str) -> str:
    return STATE_STYLES.get(word, "")
