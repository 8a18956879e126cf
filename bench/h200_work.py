"""The cells of the benchmark on an H200, and the one model that is in memory at a time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from easel.bench.h200_cells import Cell, Line, attempted
from easel.bench.h200_loops import STEP_BY_STEP, LoopMaker, Loops, compare_loops, cuda_loop
from easel.bench.h200_parts import breakdown, floor_of
from easel.bench.h200_published import Published, both_logits, published_model
from easel.bench.h200_replica import Replica, Scene, take_turns
from easel.bench.h200_report import cell_name
from easel.bench.h200_rerun import dry_loop
from easel.bench.h200_shapes import DRY, FULL, Scale, convert_to_fp8, random_parameters
from easel.worker.config import LoopKind
from easel.worker.devices import DEVICES
from easel.worker.sketch import ModelSketch, sketch_directory
from easel.worker.weights import load_parameters

DEMO = Path(__file__).parents[1] / "demo" / "checkpoint"
TRANSFORMERS = "transformers"


@dataclass(slots=True)
class Session:
    """Where everything runs, and the one model that is in memory."""

    scale: Scale
    device: torch.device
    device_name: str  # as worker/devices.py has it, or else as torch says
    make_loop: LoopMaker
    clock: Callable[[], float] = time.perf_counter
    held: str = ""  # whose parameters these are
    parameters: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def weights(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The parameters of that name, made unless they are held; those of any other are dropped first."""
        if self.held != name:
            self.drop()
            self.parameters = make()
            self.held = name
        return self.parameters

    def drop(self) -> None:
        self.held = ""
        self.parameters = {}

    def gemma(self, *, float8: bool) -> tuple[ModelSketch, dict[str, Tensor]]:
        """DiffusionGemma's shape and parameters; those in float8 take the place of the others."""
        sketch = self.scale.gemma().sketch
        if not float8 or self.held != "gemma fp8":
            found = self.weights("gemma", lambda: self._random(sketch))
        else:
            return sketch, self.parameters
        if float8:
            self.held = ""  # should it fail halfway, nobody takes what is left for a model
            convert_to_fp8(sketch, found)
            self.held = "gemma fp8"
        return sketch, found

    def sdar(self, block: int) -> tuple[ModelSketch, dict[str, Tensor]]:
        sketch = self.scale.sdar(block).sketch
        return sketch, self.weights("sdar", lambda: self._random(sketch))

    def until(self, seconds: float) -> Callable[[], bool]:
        """Whether most of a cell's time is over."""
        end = self.clock() + 0.6 * seconds
        return lambda: self.clock() > end

    def _random(self, sketch: ModelSketch) -> dict[str, Tensor]:
        return random_parameters(sketch.plan, self.scale.dtype, self.device)


def gemma_cell(session: Session, canvases: int, *, float8: bool) -> Cell:
    """The loops on DiffusionGemma, and where the time of a step goes."""
    scale, name = session.scale, cell_name("DiffusionGemma", canvases, float8=float8)

    def run(seconds: float) -> Sequence[Line]:
        until = session.until(seconds)
        sketch, parameters = session.gemma(float8=float8)
        scene = Scene(canvases, scale.prefix, scale.gemma_steps, scale.page_size)
        replica = Replica.build(sketch, parameters, scene)
        floor = floor_of(sketch, scene, session.device_name, float8=float8)
        kinds = (LoopKind.HOST, LoopKind.GRAPH)  # of two loops on the device, a step this long needs one
        lines = compare_loops(name, Loops(replica, session.make_loop), scale.rounds, until, kinds)
        parts = attempted(
            name,
            "parts of a step",
            lambda: Line(name, "parts of a step", canvases=canvases, parts=breakdown(replica, scale.rounds)),
        )
        return [*(replace(line, floor=floor) for line in lines), parts]

    return Cell(name, *session_times(session, 10.0 + canvases, 120.0), run)


def sdar_cell(session: Session, block: int, canvases: int) -> Cell:
    """The loops on SDAR-1.7B, one position a step."""
    scale, name = session.scale, cell_name(f"SDAR-1.7B, blocks of {block}", canvases)

    def run(seconds: float) -> Sequence[Line]:
        until = session.until(seconds)
        sketch, parameters = session.sdar(block)
        scene = Scene(canvases, scale.prefix, block, scale.page_size)
        replica = Replica.build(sketch, parameters, scene)
        floor = floor_of(sketch, scene, session.device_name)
        lines = compare_loops(name, Loops(replica, session.make_loop), scale.rounds, until)
        return [replace(line, floor=floor) for line in lines]

    return Cell(name, *session_times(session, 8.0 + canvases / 8, 60.0), run)


def demo_cell(session: Session, canvases: int) -> Cell:
    """The embedded model: loops of steps, and one launch for all steps."""
    scale, name = session.scale, cell_name("embedded model", canvases)

    def run(seconds: float) -> Sequence[Line]:
        until, sketch = session.until(seconds), sketch_directory(DEMO)
        parameters = session.weights(
            "demo", lambda: load_parameters(DEMO, sketch.plan, scale.dtype, session.device)
        )
        block = sketch.info.block_length
        scene = Scene(canvases, 3 * block, scale.demo_steps or block, block)
        replica = Replica.build(sketch, parameters, scene)
        kinds = (*STEP_BY_STEP, LoopKind.PERSISTENT)
        return compare_loops(name, Loops(replica, session.make_loop), scale.rounds, until, kinds)

    return Cell(name, *session_times(session, 8.0, 60.0), run)


def published_cell(session: Session) -> Cell:
    """transformers' `generate` and Easel's loop of graphs in turn, on the same weights."""
    scale, name = session.scale, cell_name("DiffusionGemma, transformers", 1)

    def run(seconds: float) -> Sequence[Line]:
        until, shape = session.until(seconds), scale.gemma()
        sketch, parameters = session.gemma(float8=False)
        scene = Scene(1, scale.prefix, scale.gemma_steps, scale.page_size)
        replica = Replica.build(sketch, parameters, scene)
        model = published_model(shape, parameters)
        theirs, ours = both_logits(model, replica)
        block = replica.shape.block_length
        prompt = torch.tensor([replica.prefix(0)[: scene.prefix - block]], device=session.device)
        published = Published(model, scene, block, prompt, compiled=not scale.tiny)
        loops = Loops(replica, session.make_loop)
        variants = {"graph": lambda: loops.lap(LoopKind.GRAPH), TRANSFORMERS: published.lap}
        lines = take_turns(name, scene, variants, scale.rounds, until)
        rates = {line.variant: line.rate.median for line in lines if line.rate is not None}
        notes = {
            "first calls, s": published.first_seconds,
            "of Easel's tok/s": rates.get(TRANSFORMERS, 0.0) / rates.get("graph", inf),
            "same argmax": float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()),
            "finite": float(theirs.isfinite().all()),
        }
        return [replace(line, notes=notes) if line.variant == TRANSFORMERS else line for line in lines]

    return Cell(name, *session_times(session, 45.0, 240.0), run)


def session_times(session: Session, least: float, most: float) -> tuple[float, float]:
    """Of a cell; a dry run needs none."""
    return (0.0, most) if session.scale.tiny else (least, most)


def all_cells(session: Session) -> list[Cell]:
    """What matters most first; transformers last, for nobody knows how long it compiles there."""
    scale = session.scale
    gemma = [
        gemma_cell(session, canvases, float8=float8)
        for float8 in (False, True)
        for canvases in scale.gemma_canvases
    ]
    sdar = [
        sdar_cell(session, block, canvases) for block in scale.sdar_blocks for canvases in scale.sdar_canvases
    ]
    return [*gemma, *sdar, demo_cell(session, scale.sdar_canvases[0]), published_cell(session)]


def open_session(*, dry: bool) -> Session:
    """On the GPU that is here, or dry on the CPU. Raises SystemExit where there is no GPU."""
    if dry:
        return Session(DRY, torch.device("cpu"), "CPU", dry_loop)
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; --dry-run goes through the benchmark without one.")
    name = torch.cuda.get_device_name()
    known = next((device for device in DEVICES if device in name), name)
    return Session(FULL, torch.device("cuda"), known, cuda_loop)
