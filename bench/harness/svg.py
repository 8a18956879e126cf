"""Plots as inline SVG: lines, points and bars on axes with round ticks; the page's style colours them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 28, 36
LEGEND_WIDTH = 130  # of one name
Points = Sequence[tuple[float, float]]


class Mark(Enum):
    """How a series is drawn."""

    LINE = "line"
    STAIRS = "stairs"  # a value holds until the next one
    DOTS = "dots"
    BARS = "bars"


@dataclass(frozen=True, slots=True)
class Series:
    """What one colour stands for."""

    name: str
    points: Points
    mark: Mark = Mark.LINE


@dataclass(frozen=True, slots=True)
class Axis:
    """What is along it. The range is [0, most]."""

    name: str
    most: float

    @property
    def ticks(self) -> list[float]:
        """About five, at 1, 2 or 5 times a power of ten."""
        rough = self.most / 5
        power = 10.0 ** floor(log10(rough))
        step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * 0.999)
        return [step * index for index in range(floor(self.most / step + 1e-9) + 1)]


def axis_of(name: str, values: Sequence[float]) -> Axis:
    """Wide enough for all values; 1 where there are none above 0."""
    return Axis(name, max(values, default=0.0) * 1.02 or 1.0)


def plot(title: str, across: str, up: str, series: Sequence[Series], most: float | None = None) -> str:
    """An SVG element with a legend. `most` cuts the upper axis off."""
    x = axis_of(across, [point[0] for one in series for point in one.points])
    y = axis_of(up, [point[1] for one in series for point in one.points] if most is None else [most / 1.02])
    parts = [_grid(x, y), *(_draw(one, index, x, y) for index, one in enumerate(series)), _legend(series)]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def _x(value: float, axis: Axis) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / axis.most


def _y(value: float, axis: Axis) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, value / axis.most)


def _grid(x: Axis, y: Axis) -> str:
    parts: list[str] = []
    for tick in y.ticks:
        at = _y(tick, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{at + 4:.1f}">{number(tick)}</text>')
    parts += [
        f'<text class="mid" x="{_x(tick, x):.1f}" y="{HEIGHT - BOTTOM + 16}">{number(tick)}</text>'
        for tick in x.ticks
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="mid" x="{middle:.0f}" y="{HEIGHT - 4}">{escape(x.name)}</text>')
    parts.append(f'<text x="2" y="12">{escape(y.name)}</text>')
    return "".join(parts)


def _draw(series: Series, index: int, x: Axis, y: Axis) -> str:
    places = [(_x(across, x), _y(up, y)) for across, up in series.points]
    if series.mark is Mark.DOTS:
        dots = "".join(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="2.5"/>' for across, up in places)
        return f'<g class="s{index}">{dots}</g>'
    if series.mark is Mark.BARS:
        floor_at = HEIGHT - BOTTOM
        bars = "".join(
            f'<rect x="{across - 8:.1f}" y="{up:.1f}" width="16" height="{floor_at - up:.1f}"/>'
            for across, up in places
        )
        return f'<g class="s{index}">{bars}</g>'
    if series.mark is Mark.STAIRS:
        places = [corner for here, there in pairwise(places) for corner in (here, (there[0], here[1]))]
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
    return f'<polyline class="s{index}" points="{path}"/>'


def _legend(series: Sequence[Series]) -> str:
    parts: list[str] = []
    for index, one in enumerate(series):
        at = WIDTH - RIGHT - LEGEND_WIDTH * (len(series) - index)
        parts.append(f'<rect class="s{index}" x="{at}" y="3" width="10" height="10"/>')
        parts.append(f'<text x="{at + 16}" y="12">{escape(one.name)}</text>')
    return "".join(parts)


def number(value: float) -> str:
    """As short as it can be said."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def thinned(points: Points, most: int = 2000) -> Points:
    """Every so manieth point, so that a page stays small."""
    return points[:: max(1, ceil(len(points) / most))]
