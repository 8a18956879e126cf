"""A DiffusionGemma checkpoint with the reference it holds, and requests driven through it plan by plan."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.bench.oracles.diffusion_gemma import (
    Generation,
    Reference,
    Settings,
    TinyGemma,
    generate,
    write_tiny,
)
from easel.scheduler.messages import BatchPlan, CanvasSpec, Row
from easel.scheduler.phase import RowKind, SequenceLayout
from easel.scheduler.request import DiffusionParams, SamplingParams
from easel.worker.host_loop import HostLoop
from easel.worker.kv_cache import KVCache
from easel.worker.model_info import read_json
from easel.worker.models.diffusion_gemma import DiffusionGemma, build_model, parameter_plan
from easel.worker.models.gemma_config import GemmaConfig, read_config
from easel.worker.pieces import Geometry
from easel.worker.registers import CanvasRegisters
from easel.worker.renoise import RenoisingDenoiser
from easel.worker.runner import Runner
from easel.worker.step_program import Machine
from easel.worker.weights import load_parameters

CPU = torch.device("cpu")
PAGE = 6  # tokens; neither the window nor the canvas is a multiple of it
PAGES = 16  # of one request


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to drive."""

    prompt: tuple[int, ...]
    max_tokens: int
    seed: int
    settings: Settings = field(default_factory=Settings)

    def spec(self, block_index: int, block: int) -> CanvasSpec:
        settings = self.settings
        return CanvasSpec(
            block_index=block_index,
            known=(),
            limit=min(block, self.max_tokens - block_index * block),
            sampling=SamplingParams(max_tokens=self.max_tokens, temperature=1.0, seed=self.seed),
            diffusion=DiffusionParams(
                steps=settings.steps,
                entropy_bound=settings.entropy_bound,
                stop_entropy=settings.stop_entropy,
                stability=settings.stability,
                temperature_start=settings.temperature_start,
                temperature_end=settings.temperature_end,
            ),
        )


@dataclass(frozen=True, slots=True)
class GemmaCheckpoint:
    """What was written to disk, and what the reference makes of it."""

    path: Path
    reference: Reference
    _known: dict[tuple[Asked, tuple[int, ...]], Generation] = field(
        default_factory=dict[tuple[Asked, tuple[int, ...]], Generation]
    )

    @property
    def tiny(self) -> TinyGemma:
        return self.reference.tiny

    def expected(self, asked: Asked, eos: tuple[int, ...]) -> Generation:
        """What the reference generates, alone; computed once."""
        key = (asked, eos)
        if key not in self._known:
            self._known[key] = generate(
                self.reference, asked.prompt, asked.max_tokens, asked.seed, asked.settings, eos
            )
        return self._known[key]

    @property
    def config(self) -> GemmaConfig:
        return read_config(read_json(self.path / "config.json", "it describes the model"))

    def model(self, dtype: torch.dtype = torch.float32) -> DiffusionGemma:
        plan = parameter_plan(self.config)
        return build_model(self.config, load_parameters(self.path, plan, dtype, CPU))

    def runner(self, slots: int, dtype: torch.dtype = torch.float32) -> Runner:
        model = self.model(dtype)
        block = self.tiny.canvas_length
        registers = CanvasRegisters.allocate(slots, block, self.tiny.pad_token_id, CPU)
        stored = [slots * PAGES * PAGE] * 2
        cache = KVCache.allocate(self.config.kv_groups, stored, PAGE, dtype, CPU)
        for store in (*cache.keys, *cache.values):
            store.fill_(float("nan"))  # nothing is to be read that was not written
        return Runner(
            machine=Machine(model, cache, registers, RenoisingDenoiser.allocate(registers, model)),
            geometry=Geometry(
                SequenceLayout.CAUSAL,
                block,
                PAGE,
                self.tiny.pad_token_id,
                windows=(None, self.tiny.window),
                canvas_base=(0, 0),
            ),
            loop=HostLoop(),
            clock=lambda: 0.0,
        )


def write_checkpoint(path: Path, tiny: TinyGemma | None = None) -> GemmaCheckpoint:
    return GemmaCheckpoint(path, write_tiny(path, tiny or TinyGemma(), Settings()))


def capped_logits(model: DiffusionGemma, hidden: Tensor) -> Tensor:
    """[n, vocabulary] float32, as the reference's head computes them."""
    return (F.linear(hidden, model.head).float() / model.softcap).tanh() * model.softcap


@dataclass(slots=True)
class Driven:
    """A request on its way: what is in the pages, what is to be written, and the rows that do it."""

    asked: Asked
    slot: int
    window: int
    block: int
    pages: Sequence[int]  # page tables of all it can ever hold, one per KV group
    window_pages: Sequence[int]
    pending: list[tuple[int, ...]]  # chunks to write, one a forward
    written: int = 0
    canvases: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    steps: list[int] = field(default_factory=list[int])

    def rows(self) -> list[Row]:
        """The next forward's rows: a write if there is one, and a canvas row once all is written."""
        rows: list[Row] = []
        if not self.pending:
            return [self._row(RowKind.REUSE, self.block)]
        tokens = self.pending.pop(0)
        kind = RowKind.COMMIT if self.canvases else RowKind.PREFILL
        rows.append(self._row(kind, len(tokens), tokens))
        self.written += len(tokens)
        if not self.pending:
            spec = self.asked.spec(len(self.canvases), self.block)
            rows.append(self._row(RowKind.OPEN, self.block, canvas=spec))
        return rows

    def unseen_pages(self) -> Sequence[int]:
        """Pages of sliding layers that no later token can see."""
        return self.window_pages[: self._first_seen()]

    def _first_seen(self) -> int:
        return max(0, self.written - self.window + 1) // PAGE

    def _row(
        self, kind: RowKind, length: int, tokens: tuple[int, ...] = (), canvas: CanvasSpec | None = None
    ) -> Row:
        start, first = self.written, self._first_seen()
        covered = -(-(start + length if kind.writes_pages else start) // PAGE)
        return Row(
            kind=kind,
            request_id=f"r{self.slot}",
            slot=self.slot,
            start=start,
            length=length,
            pages=tuple(self.pages[:covered]),
            tokens=tokens,
            canvas=canvas,
            canvas_start=start,
            window_pages=tuple(self.window_pages[first:covered]),
            window_first=first,
        )


def drive(runner: Runner, requests: Sequence[Asked], eos: Iterable[int], chunk: int) -> list[Generation]:
    """Run all requests side by side, each to the end; a commit and the next opening share a forward."""
    window = runner.geometry.windows[1]
    assert window is not None
    count = PAGES * len(requests)
    tables = [Random(group).sample(range(count), count) for group in (0, 1)]
    driven = [
        Driven(
            asked,
            slot,
            window,
            runner.geometry.block_length,
            *(table[slot * PAGES : (slot + 1) * PAGES] for table in tables),
            pending=[asked.prompt[at : at + chunk] for at in range(0, len(asked.prompt), chunk)],
        )
        for slot, asked in enumerate(requests)
    ]
    ends, live = frozenset(eos), list(driven)
    while live:
        rows = [row for one in live for row in one.rows()]
        rows.sort(key=lambda row: not row.kind.writes_pages)
        result = runner.run(BatchPlan(tuple(rows)))
        for canvas in result.canvases:
            if canvas.done:
                one = driven[canvas.slot]
                one.canvases.append(canvas.tokens)
                one.steps.append(canvas.step)
                one.pending = [canvas.tokens]
                if ends & set(canvas.tokens) or len(one.canvases) * one.block >= one.asked.max_tokens:
                    live.remove(one)
        _forget(runner.machine.cache, [page for one in live for page in one.unseen_pages()])
    return [Generation(tuple(chain.from_iterable(one.canvases)), tuple(one.steps)) for one in driven]


def encoded(chunks: Iterable[tuple[int, ...]], block: int, window: int) -> Iterator[list[Row]]:
    """The rows of one forward for each chunk; with the last one slot 0 opens a canvas."""
    one = Driven(Asked((), block, 0), 0, window, block, range(PAGES), range(PAGES)[::-1], list(chunks))
    while one.pending:
        yield one.rows()


def padded(tokens: Sequence[int], eos: Iterable[int], pad: int) -> tuple[int, ...]:
    """What the reference makes of tokens after the first end-of-sequence."""
    ends = frozenset(eos)
    first = next((index for index, token in enumerate(tokens) if token in ends), len(tokens))
    return (*tokens[: first + 1], *[pad] * (len(tokens) - first - 1))


def _forget(cache: KVCache, pages: Sequence[int]) -> None:
    for store in (cache.keys[1], cache.values[1]):
        for page in pages:
            store[:, page * PAGE : (page + 1) * PAGE] = float("nan")
