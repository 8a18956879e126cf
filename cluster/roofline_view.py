"""Prints and draws what `easel roofline` finds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from easel.cluster.errors import ConfigError, MissingPackage
from easel.cluster.model_report import sketch_of
from easel.worker.device import choose_dtype, cpu_features
from easel.worker.devices import Device, known_device
from easel.worker.roofline import Forward, Scene, block_seconds, phases

BOUND_STYLES = {"memory": "cyan", "arithmetic": "magenta"}


@dataclass(frozen=True, slots=True)
class RooflineQuestion:
    """What is asked: a model on a device, in batches of several sizes."""

    name: str
    scene: Scene
    device: Device
    batches: tuple[int, ...]  # canvases denoised together
    steps: int  # per block
    rebuild_every: int = 0  # of models whose prefix is not exact; 0: each step computes everything

    def tokens_per_second(self, canvases: int) -> float:
        """Output tokens of all canvases, at the floor."""
        found = phases(self.scene, canvases)
        seconds = block_seconds(found, self.device, self.steps, self.rebuild_every)
        return canvases * self.scene.block_length / seconds


def ask_roofline(
    model: Path | None,
    preset: str | None,
    device: tuple[str, float | None, float | None],  # name, TFLOP/s, TB/s
    batches: str,  # numbers, separated by commas
    *,
    prefix: int,
    steps: int,
    rebuild_every: int,
    dtype: str,
) -> RooflineQuestion:
    """The question that a command line asks. Raises WorkerError or ConfigError."""
    sketch = sketch_of(model, preset)
    info, block = sketch.info, sketch.info.block_length
    itemsize = choose_dtype(dtype, torch.device("cpu"), cpu_features()).itemsize
    scene = Scene(sketch.anatomy, info.family.layout, block, itemsize, prefix)
    # A masked block is settled after as many steps as it has positions.
    most = steps if info.family.renoises else min(steps, block)
    return RooflineQuestion(info.name, scene, _device(*device), _batches(batches), most, rebuild_every)


def print_roofline(question: RooflineQuestion, console: Console) -> None:
    """A row per phase and batch, then the tokens per second they allow."""
    device, scene = question.device, question.scene
    console.print(
        f"{question.name} on {device.name}: {device.flops / 1e12:,.4g} TFLOP/s, "
        f"{device.bandwidth / 1e12:,.4g} TB/s, balance {device.balance:,.0f} FLOP/byte ({device.source})"
    )
    table = Table("phase", "bound by", box=None, pad_edge=False)
    for name in ("canvases", "tokens", "GFLOP", "GB read", "FLOP/byte", "floor, ms"):
        table.add_column(name, justify="right")
    for phase, rows in _by_phase(question).items():
        for canvases, found in rows:
            bound = found.bound(device)
            table.add_row(phase, f"[{BOUND_STYLES[bound]}]{bound}[/]", *_cells(canvases, found, device))
    console.print(table)
    steps = f"{question.steps} steps a block of {scene.block_length}, prefix {scene.prefix:,}"
    for canvases in question.batches:
        speed = question.tokens_per_second(canvases)
        word = "canvas" if canvases == 1 else "canvases"
        each = f", {speed / canvases:,.0f} each" if canvases > 1 else ""
        console.print(f"{canvases} {word}, {steps}: at most {speed:,.0f} tokens/s{each}")


def plot_roofline(question: RooflineQuestion, path: Path) -> None:
    """The device's roof and where each phase stands under it. Raises MissingPackage."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 an optional dependency
    except ImportError:
        raise MissingPackage("matplotlib", "a picture", "pip install 'easel[demo]'") from None
    device = question.device
    figure = Figure(figsize=(7.5, 4.8), layout="tight")
    axes = figure.subplots()
    found = _by_phase(question)
    reached = [forward.intensity for rows in found.values() for _, forward in rows]
    edges = [min(*reached, device.balance) / 3, device.balance, max(*reached, device.balance) * 3]
    roof = [min(device.flops, edge * device.bandwidth) / 1e12 for edge in edges]
    axes.plot(edges, roof, color="black", label=device.name)
    for phase, rows in found.items():
        places = [(forward.intensity, _attained(forward, device)) for _, forward in rows]
        axes.plot(*zip(*places, strict=True), marker="o", label=phase)
        for (canvases, _), place in zip(rows, places, strict=True):
            axes.annotate(str(canvases), place, textcoords="offset points", xytext=(4, -10), fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="TFLOP/s at the floor")
    axes.set_title(f"{question.name} on {device.name}, prefix {question.scene.prefix:,}; labels: canvases")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _device(name: str, tflops: float | None, tbs: float | None) -> Device:
    if tflops is not None and tbs is not None:
        return Device(name, tflops * 1e12, tbs * 1e12, memory=0, source="as given")
    known = known_device(name)
    given = {"flops": tflops, "bandwidth": tbs}
    return replace(known, **{field: value * 1e12 for field, value in given.items() if value is not None})


def _batches(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError("--batch", f"{text!r} must be numbers of canvases, such as 1,8,64.")
    return tuple(int(part) for part in parts)


def _by_phase(question: RooflineQuestion) -> dict[str, list[tuple[int, Forward]]]:
    found: dict[str, list[tuple[int, Forward]]] = {}
    for canvases in question.batches:
        for phase, forward in phases(question.scene, canvases).items():
            if phase == "prefill" and phase in found:
                continue  # one chunk, however many canvases there are
            found.setdefault(phase, []).append((canvases, forward))
    return found


def _attained(found: Forward, device: Device) -> float:
    return found.total.flops / found.seconds(device) / 1e12


def _cells(canvases: int, found: Forward, device: Device) -> Sequence[str]:
    return (
        f"{canvases:,}",
        f"{found.tokens:,}",
        f"{found.total.flops / 1e9:,.0f}",
        f"{found.total.bytes / 1e9:,.2f}",
        f"{found.intensity:,.0f}",
        f"{found.seconds(device) * 1e3:,.2f}",
    )
