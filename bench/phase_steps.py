"""What a step would take on a device that nobody has here: the roofline of a plan's rows, and a margin."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

from easel.scheduler.messages import Row
from easel.scheduler.phase import RowKind, SequenceLayout
from easel.worker.anatomy import Anatomy
from easel.worker.devices import Device
from easel.worker.roofline import Rows, Work, forward

REACHED = 0.75  # of the roofline
HOST_SECONDS = 1e-3  # of every step
# Steps of a 256-token block of DiffusionGemma-26B-A4B on real text: (share of blocks, at most so many).
# Piecewise linear through p10, median and what makes the mean 26.6; 21 % are cut off at the cap of 48.
GEMMA_STEPS = ((0.0, 4), (0.1, 10), (0.5, 23), (0.79, 40), (0.79, 48), (1.0, 48))


def draw_steps(rng: Random, quantiles: Sequence[tuple[float, int]] = GEMMA_STEPS) -> int:
    """Steps of one block, by the inverse of its distribution."""
    share = rng.random()
    for (low, least), (high, most) in pairwise(quantiles):
        if share < high:
            return round(least + (most - least) * (share - low) / (high - low))
    return quantiles[-1][1]


class RooflineSteps:
    """Seconds of a plan's forward: the floor of worker/roofline.py / `reached` + host time."""

    def __init__(
        self,
        anatomy: Anatomy,
        device: Device,
        layout: SequenceLayout,
        *,
        itemsize: int = 2,
        reached: float = REACHED,
        host_seconds: float = HOST_SECONDS,
    ) -> None:
        self._anatomy = anatomy
        self._device = device
        self._causal = layout is SequenceLayout.CAUSAL
        self._itemsize = itemsize
        self._reached = reached
        self._host = host_seconds
        self._attention: dict[tuple[RowKind, int, int, int, bool], Work] = {}
        self._layers: dict[int, float] = {}  # seconds, by tokens
        self._heads: dict[int, float] = {}  # seconds, by head rows

    def __call__(self, rows: Sequence[Row]) -> float:
        committing = {row.slot for row in rows if row.kind is RowKind.COMMIT}
        tokens = head = 0
        flops = traffic = 0.0
        for row in rows:
            tokens += row.length
            if row.kind.needs_head:
                head += row.length if row.span == 0 else min(row.length, row.span - row.canvas_start)
            reads = not (row.kind is RowKind.OPEN and row.slot in committing)
            work = self._attention_of(row, reads)
            flops += work.flops
            traffic += work.bytes
        attention = max(flops / self._device.flops, traffic / self._device.bandwidth)
        floor = self._layers_of(tokens) + self._head_of(head) + attention
        return floor / self._reached + self._host

    def _attention_of(self, row: Row, reads: bool) -> Work:
        key = (row.kind, row.length, row.start, row.span, reads)
        if key not in self._attention:
            found = forward(self._anatomy, [self._shape(row, reads)], self._itemsize)
            self._attention[key] = found.parts["attention"]
        return self._attention[key]

    def _shape(self, row: Row, reads: bool) -> Rows:
        if row.span:  # all see all
            return Rows(1, row.length, row.span - row.length, row.length, reads=row.length < row.span)
        causal = self._causal and row.kind.writes_pages
        own = (row.length + 1) / 2 if causal else float(row.length)
        return Rows(1, row.length, row.start, own, causal=causal, reads=reads)

    def _layers_of(self, tokens: int) -> float:
        if tokens not in self._layers:
            parts = forward(self._anatomy, [Rows(1, tokens, 0, 0.0)], self._itemsize).parts
            self._layers[tokens] = sum(
                parts[name].seconds(self._device) for name in ("dense", "experts") if name in parts
            )
        return self._layers[tokens]

    def _head_of(self, head: int) -> float:
        if head not in self._heads:
            parts = forward(self._anatomy, [Rows(1, 1, 0, 0.0, head=head)], self._itemsize).parts
            self._heads[head] = sum(
                parts[name].seconds(self._device) for name in ("head", "conditioning") if name in parts
            )
        return self._heads[head]
