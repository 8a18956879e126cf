"""A replica without a scheduler, whose canvases all march in step: what one forward costs, exactly."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

import torch
from torch import Tensor

from easel.bench.h200_cells import Line, failed
from easel.bench.report import figure
from easel.scheduler.messages import BatchPlan, CanvasResult, CanvasSpec, ReplicaShape, Row, StepResult
from easel.scheduler.phase import RowKind
from easel.scheduler.request import CommitRule, SamplingParams
from easel.worker.batch import build_batch
from easel.worker.config import EngineConfig
from easel.worker.host_loop import HostLoop, StepLoop
from easel.worker.models.registry import definition_of
from easel.worker.pieces import Geometry
from easel.worker.runner import Runner
from easel.worker.sketch import ModelSketch
from easel.worker.state import allocate_state, replica_shape
from easel.worker.step_program import Machine, StepProgram

T = TypeVar("T")
NO_TOKEN = -1  # ends nothing: every canvas takes all of its steps
CHUNK_TOKENS = 2048  # of one prefill forward
RANDOM_TOKENS = 0.9  # part of the vocabulary that prompts are drawn from: above it are special tokens


@dataclass(frozen=True, slots=True)
class Scene:
    """Canvases, and what they stand on."""

    canvases: int
    prefix: int  # tokens before each canvas; its last block is committed in the forward that opens
    steps: int  # of each canvas
    page_size: int

    @property
    def pages(self) -> int:
        """Of each canvas's prefix."""
        return -(-self.prefix // self.page_size)


@dataclass(frozen=True, slots=True)
class Lap:
    """One whole canvas of each slot."""

    opening: float  # seconds: the forward that commits the last block and opens the canvas
    step: float  # seconds of each reuse step after it
    seconds: float  # of everything
    tokens: int


@dataclass(frozen=True, slots=True)
class Replica:
    """Weights, state, and the same rows again and again."""

    sketch: ModelSketch
    scene: Scene
    shape: ReplicaShape
    machine: Machine
    geometry: Geometry

    @classmethod
    def build(cls, sketch: ModelSketch, parameters: Mapping[str, Tensor], scene: Scene) -> "Replica":
        """With a prefix in every slot's pages."""
        info = replace(sketch.info, eos_token_ids=frozenset({NO_TOKEN}))
        dimensions, pages = sketch.dimensions, scene.canvases * scene.pages
        model = definition_of(info.architecture).build(dimensions, parameters)
        config = EngineConfig(page_size=scene.page_size)
        shape = replica_shape(info, dimensions, config, scene.canvases, pages)
        if shape.window:
            shape = replace(shape, window_pages=pages)  # nothing is ever dropped
        state = allocate_state(info, dimensions, shape, model, spare_slots=1)
        geometry = Geometry(
            layout=shape.layout,
            block_length=shape.block_length,
            page_size=shape.page_size,
            mask_token_id=info.mask_token_id,
            windows=tuple(group.window for group in dimensions.kv_groups),
            canvas_base=(0,) * len(dimensions.kv_groups),
        )
        machine = Machine(model, state.cache, state.registers, state.denoiser)
        replica = cls(sketch, scene, shape, machine, geometry)
        replica._prefill()
        return replica

    @property
    def device(self) -> torch.device:
        return self.machine.registers.device

    def runner(self, loop: StepLoop) -> Runner:
        return Runner(self.machine, self.geometry, loop, time.perf_counter)

    def prefix(self, slot: int) -> tuple[int, ...]:
        """Random tokens, always the same."""
        draw, most = Random(slot), int(self.sketch.info.vocab_size * RANDOM_TOKENS)
        return tuple(draw.randrange(2, most) for _ in range(self.scene.prefix))

    def opening(self) -> BatchPlan:
        """Commits the prefix's last block and opens a canvas behind it, in every slot."""
        start, slots = self.scene.prefix, range(self.scene.canvases)
        commits = [self._written(slot, start - self._block, self._block, RowKind.COMMIT) for slot in slots]
        return BatchPlan((*commits, *(self._canvas(slot, RowKind.OPEN) for slot in slots)))

    def reusing(self, steps: int) -> BatchPlan:
        """Denoises every canvas `steps` times."""
        rows = tuple(self._canvas(slot, RowKind.REUSE) for slot in range(self.scene.canvases))
        return BatchPlan(rows, steps=steps)

    def program(self, plan: BatchPlan) -> StepProgram:
        """The step of a plan of reuse rows."""
        registers = self.machine.registers
        batch = build_batch(plan, registers, self.geometry, self.device)
        return StepProgram(self.machine, batch, registers.traits_of(range(self.scene.canvases)))

    def lap(self, runner: Runner) -> Lap:
        """Raises RuntimeError unless every canvas takes all its steps and commits a whole block."""
        rest = self.scene.steps - 1
        opening, reusing = self.opening(), self.reusing(rest)
        opened, first = timed(self.device, lambda: runner.run(opening))
        self._check(opened, 1, 1, done=False)
        found, more = timed(self.device, lambda: runner.run(reusing))
        self._check(found, rest, self.scene.steps, done=True)
        tokens = sum(len(canvas.tokens) for canvas in found.canvases)
        return Lap(first, more / rest, first + more, tokens)

    @property
    def _block(self) -> int:
        return self.shape.block_length

    def _prefill(self) -> None:
        """All of the prefix but its last block, a block or more of some slots at a time."""
        runner, end = self.runner(HostLoop()), self.scene.prefix - self._block
        length = max(self._block, 256)
        together = max(1, CHUNK_TOKENS // length)
        for first in range(0, self.scene.canvases, together):
            slots = range(first, min(first + together, self.scene.canvases))
            for start in range(0, end, length):
                count = min(length, end - start)
                rows = [self._written(slot, start, count, RowKind.PREFILL) for slot in slots]
                runner.run(BatchPlan(tuple(rows)))

    def _written(self, slot: int, start: int, length: int, kind: RowKind) -> Row:
        tokens, pages = self.prefix(slot)[start : start + length], self._pages(slot)
        return Row(kind, str(slot), slot, start, length, pages, tokens, window_pages=pages)

    def _canvas(self, slot: int, kind: RowKind) -> Row:
        pages, start = self._pages(slot), self.scene.prefix
        spec = self._spec(slot) if kind is RowKind.OPEN else None
        return Row(
            *(kind, str(slot), slot, start, self._block, pages),
            canvas=spec,
            canvas_start=start,
            window_pages=pages,
        )

    def _spec(self, slot: int) -> CanvasSpec:
        info = self.sketch.info
        diffusion = replace(
            info.diffusion,
            steps=self.scene.steps,
            commit_rule=CommitRule.STATIC_SCHEDULE,
            stop_entropy=None,
            rebuild_every=0,
        )
        sampling = SamplingParams(self._block, temperature=info.temperature, seed=slot)
        return CanvasSpec(0, (), self._block, sampling, diffusion)

    def _pages(self, slot: int) -> tuple[int, ...]:
        return tuple(range(slot * self.scene.pages, (slot + 1) * self.scene.pages))

    def _check(self, found: StepResult, forwards: int, step: int, *, done: bool) -> None:
        def right(canvas: CanvasResult) -> bool:
            return canvas.done == done and canvas.step == step and len(canvas.tokens) == done * self._block

        if found.steps != forwards or not all(right(canvas) for canvas in found.canvases):
            steps = sorted({canvas.step for canvas in found.canvases})
            raise RuntimeError(f"{found.steps} forwards and steps {steps}, not {forwards} and {step}")


def timed(device: torch.device, run: Callable[[], T]) -> tuple[T, float]:
    """What `run` returns, and its seconds on the device, gaps included."""
    if device.type != "cuda":
        started = time.perf_counter()
        found = run()
        return found, time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    found = run()
    end.record()
    end.synchronize()
    return found, begin.elapsed_time(end) / 1e3


def take_turns(
    cell: str,
    scene: Scene,
    variants: Mapping[str, Callable[[], Lap]],
    rounds: int,
    until: Callable[[], bool],
) -> list[Line]:
    """A line for each variant, warmed up, then A/B/A/B; no new round begins once `until` is true.

    A variant that cannot even warm up is a line that says so, for the reason that cells are isolated.
    """
    lines, laps = list[Line](), dict[str, list[Lap]]()
    for name, run in variants.items():
        try:
            run()
        except Exception as error:  # noqa: BLE001  it becomes a line of the report; see run_cells
            lines.append(failed(cell, name, error))
        else:
            laps[name] = []
    for turn in range(rounds):
        if turn and until():
            break
        for name, found in laps.items():
            found.append(variants[name]())
    return [*(_line(cell, name, scene, found) for name, found in laps.items()), *lines]


def _line(cell: str, variant: str, scene: Scene, laps: Sequence[Lap]) -> Line:
    return Line(
        cell,
        variant,
        canvases=scene.canvases,
        steps=scene.steps,
        tokens=laps[0].tokens,
        step=figure([lap.step for lap in laps]),
        opening=figure([lap.opening for lap in laps]),
        rate=figure([lap.tokens / lap.seconds for lap in laps]),
    )
