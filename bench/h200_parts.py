"""Where the time of a step goes, and the least it can take."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import wraps
from statistics import median
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from easel.bench.h200_replica import Replica, Scene
from easel.worker import renoise
from easel.worker.devices import DEVICES, Device
from easel.worker.host_loop import HostLoop
from easel.worker.models import gemma_layers
from easel.worker.roofline import Scene as Roofline
from easel.worker.roofline import phases
from easel.worker.sketch import ModelSketch
from easel.worker.step_program import StepProgram

# What the model and its denoiser call, and the part of a step that it is. All else is the rest: norms,
# rotation, gating of the dense MLP, the router's projection, registers.
CALLS: Mapping[str, tuple[tuple[ModuleType, str], ...]] = {
    "attention": ((gemma_layers, "canvas_attention"),),
    "experts": ((gemma_layers, "softmax_router"), (gemma_layers, "expert_mlp")),
    "dense": ((gemma_layers, "linear"),),
    "head": ((renoise, "soft_head"),),
}
DELAY_CYCLES = 400_000_000  # about 0.2 s of an H200's clock: longer than the host needs to launch a step
EIGHT_BITS = ("dense", "experts")  # parts of a forward whose weights are float8; the head's are not
FLOAT8_RATE: Mapping[str, float] = {"H200": 1.5e15, "H100": 1.979e15}  # FLOP/s; assumed, from the data sheet


@dataclass(frozen=True, slots=True)
class Marks:
    """Points in a device's time; on a CPU, in the process's own."""

    device: torch.device

    def mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def delay(self) -> None:
        """Keep the device busy while the host launches what is measured, so that no gap counts."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            # There is no public one.
            torch.cuda._sleep(DELAY_CYCLES)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def seconds(self, begin: Any, end: Any) -> float:
        if self.device.type != "cuda":
            return end - begin
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


@dataclass(slots=True)
class Ranges:
    """From where to where each part ran."""

    marks: Marks
    found: list[tuple[str, Any, Any]] = field(default_factory=list[tuple[str, Any, Any]])

    def ranged(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            begin = self.marks.mark()
            found = call(*args, **kwargs)
            self.found.append((part, begin, self.marks.mark()))
            return found

        return run

    def seconds(self) -> dict[str, float]:
        totals = dict.fromkeys(CALLS, 0.0)
        for part, begin, end in self.found:
            totals[part] += self.marks.seconds(begin, end)
        return totals


@torch.inference_mode()
def breakdown(replica: Replica, rounds: int) -> dict[str, float]:
    """Seconds of each part of one reuse step of DiffusionGemma, run eagerly; they add up to "step".

    Medians of the parts; the rest is what they leave of the median step.
    """
    program = _opened(replica)
    marks = Marks(replica.device)
    _run(program)
    steps: list[tuple[float, dict[str, float]]] = []
    for _ in range(rounds):
        _opened(replica)
        steps.append(_ranged_step(program, marks))
    step = median(seconds for seconds, _ in steps)
    parts = {part: median(found[part] for _, found in steps) for part in CALLS}
    return {**parts, "rest": step - sum(parts.values()), "step": step}


def floor_of(sketch: ModelSketch, scene: Scene, device: str, *, float8: bool = False) -> float | None:
    """Seconds of a reuse step at best, on a device of worker/devices.py; None of one that is not there."""
    if device not in DEVICES:
        return None
    whole = DEVICES[device]
    layout, block = sketch.info.family.layout, sketch.info.block_length
    narrow = Device(whole.name, FLOAT8_RATE.get(device, whole.flops), whole.bandwidth, whole.memory, "")

    def parts(itemsize: int) -> Mapping[str, Any]:
        at = Roofline(sketch.anatomy, layout, block, itemsize, scene.prefix)
        return phases(at, scene.canvases)["reuse"].parts

    wide = parts(2)
    if not float8:
        return sum(part.seconds(whole) for part in wide.values())
    eight = parts(1)
    kept = sum(part.seconds(whole) for name, part in wide.items() if name not in EIGHT_BITS)
    return kept + sum(eight[name].seconds(narrow) for name in EIGHT_BITS if name in eight)


def _opened(replica: Replica) -> StepProgram:
    """The step of canvases that have just been opened."""
    replica.runner(HostLoop()).run(replica.opening())
    return replica.program(replica.reusing(1))


def _ranged_step(program: StepProgram, marks: Marks) -> tuple[float, dict[str, float]]:
    ranges = Ranges(marks)
    with ExitStack() as stack:
        for part, calls in CALLS.items():
            for module, name in calls:
                ranged = ranges.ranged(part, vars(module)[name])
                stack.enter_context(patch.object(module, name, ranged))
        marks.delay()
        begin = marks.mark()
        _run(program)
        end = marks.mark()
    seconds = marks.seconds(begin, end)
    return seconds, ranges.seconds()


def _run(program: StepProgram) -> None:
    for node in program.nodes:
        node.run()
