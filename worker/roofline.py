"""The least time a forward can take on a device: the roofline model (Williams et al., 2009) of each phase.

A forward's parts run one after another, so their floors add. Every weight is read once a forward,
of experts those that its tokens are expected to touch, and of the prefix the keys and values.
Activations are not counted: they are what fusing kernels saves. docs/roofline.md derives all this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from easel.scheduler.phase import SequenceLayout
from easel.worker.anatomy import Anatomy, LayerAnatomy
from easel.worker.devices import Device

PREFILL_CHUNK = 512  # tokens; what a step's refresh quota is unless the scheduler says otherwise


@dataclass(frozen=True, slots=True)
class Work:
    """What one part of a forward needs."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, device: Device) -> float:
        return max(self.flops / device.flops, self.bytes / device.bandwidth)


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward, part by part."""

    tokens: int
    parts: Mapping[str, Work]

    @property
    def total(self) -> Work:
        return sum(self.parts.values(), start=Work())

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.total.flops / self.total.bytes

    def seconds(self, device: Device) -> float:
        return sum(part.seconds(device) for part in self.parts.values())

    def bound(self, device: Device) -> str:
        """What most of the time goes to: "memory" or "arithmetic"."""
        waits = sum(
            part.seconds(device)
            for part in self.parts.values()
            if part.bytes / device.bandwidth > part.flops / device.flops
        )
        return "memory" if waits > self.seconds(device) / 2 else "arithmetic"


@dataclass(frozen=True, slots=True)
class Rows:
    """Equal rows of a forward."""

    count: int
    queries: int
    prefix: int  # tokens before the first query
    own: float  # keys of the row itself that a query sees, on average
    head: int = 0  # queries that go through the head
    causal: bool = False  # a window begins at each query, not at the row
    reads: bool = True  # the prefix comes from memory; an opening's has just been read by its commit


@dataclass(frozen=True, slots=True)
class Scene:
    """A model on a device, and what its canvases stand on."""

    anatomy: Anatomy
    layout: SequenceLayout
    block_length: int
    itemsize: int = 2  # bytes of a weight and of a key's number
    prefix: int = 2048  # tokens


def forward(anatomy: Anatomy, rows: Sequence[Rows], itemsize: int) -> Forward:
    """What a forward over `rows` needs."""
    tokens = sum(row.count * row.queries for row in rows)
    head = sum(row.count * row.head for row in rows)
    matrices = sum(layer.matrices for layer in anatomy.layers)
    read = matrices + sum(layer.vectors for layer in anatomy.layers) + anatomy.vectors
    parts = {
        "dense": Work(2.0 * tokens * matrices, float(itemsize * read)),
        "experts": sum((_experts(layer, tokens, itemsize) for layer in anatomy.layers), start=Work()),
        "attention": sum(
            (_attention(layer, row, itemsize) for layer in anatomy.layers for row in rows), start=Work()
        ),
    }
    if head:
        product = Work(2.0 * head * anatomy.embedding, float(itemsize * anatomy.embedding))
        parts["head"] = product
        if anatomy.conditioning:
            # Probabilities times embedding, then the matrices that turn the sum into an input.
            conditioning = float(anatomy.conditioning)
            parts["conditioning"] = product + Work(2.0 * head * conditioning, itemsize * conditioning)
    return Forward(tokens, {name: work for name, work in parts.items() if work.bytes or work.flops})


def phases(scene: Scene, canvases: int) -> dict[str, Forward]:
    """The forwards a block is made of, each as if all canvases were in that phase at once."""
    block, prefix = scene.block_length, scene.prefix
    if not scene.layout.shares_prefix:
        whole = prefix + block
        rows = {
            "rebuild": [Rows(canvases, whole, 0, whole, head=block)],
            "reuse": [Rows(canvases, block, prefix, block, head=block)],
        }
    else:
        chunk = min(PREFILL_CHUNK, prefix) or block
        rows = {
            "prefill": [_written(scene, 1, chunk, prefix - chunk)],
            "commit + open": [
                _written(scene, canvases, block, prefix),
                Rows(canvases, block, prefix + block, block, head=block, reads=False),
            ],
            "reuse": [Rows(canvases, block, prefix, block, head=block)],
        }
    return {name: forward(scene.anatomy, kind, scene.itemsize) for name, kind in rows.items()}


def block_seconds(found: Mapping[str, Forward], device: Device, steps: int, rebuild_every: int = 0) -> float:
    """The least time for a block of `steps` steps, out of what `phases` returns.

    With a shared prefix the first step is the opening, in the forward that commits the block
    before. Otherwise every `rebuild_every`-th step recomputes the whole sequence; 0: each does.
    """
    if "rebuild" in found:
        rebuilds = ceil(steps / rebuild_every) if rebuild_every else steps
        reuse = (steps - rebuilds) * found["reuse"].seconds(device)
        return rebuilds * found["rebuild"].seconds(device) + reuse
    return found["commit + open"].seconds(device) + (steps - 1) * found["reuse"].seconds(device)


def _written(scene: Scene, count: int, queries: int, prefix: int) -> Rows:
    """Rows that write pages: causal, or bidirectional within each block."""
    causal = scene.layout is SequenceLayout.CAUSAL
    own = (queries + (1 if causal else scene.block_length)) / 2
    return Rows(count, queries, prefix, own, causal=causal)


def _experts(layer: LayerAnatomy, tokens: int, itemsize: int) -> Work:
    """Experts are read once each, if any token chooses them; choices count as independent."""
    if not layer.experts:
        return Work()
    touched = layer.experts * (1.0 - (1.0 - layer.chosen / layer.experts) ** tokens)
    return Work(2.0 * tokens * layer.chosen * layer.expert, touched * layer.expert * itemsize)


def _attention(layer: LayerAnatomy, rows: Rows, itemsize: int) -> Work:
    """Scores and weighted sums; the prefix's keys and values are read once a row that reads them."""
    seen, visible = float(rows.prefix), rows.prefix + rows.own
    if layer.window is not None:
        seen = min(seen, layer.window - 1.0)
        visible = min(visible, float(layer.window)) if rows.causal else seen + rows.own
    pairs = rows.count * rows.queries * visible
    numbers = rows.count * seen * rows.reads * 2 * layer.kv_heads * layer.head_dim
    return Work(4.0 * layer.heads * layer.head_dim * pairs, numbers * itemsize)
