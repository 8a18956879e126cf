"""What `easel doctor` says of a model before it is loaded: what it is, what it takes, what fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ByteSize, TypeAdapter, ValidationError

from easel.cluster.doctor import Finding, Verdict
from easel.cluster.errors import ConfigError
from easel.worker.allocation import RESERVE, allocate, usable_memory
from easel.worker.config import EngineConfig
from easel.worker.device import choose_device, choose_dtype, choose_storage, cpu_features
from easel.worker.errors import CheckpointError, NotEnoughMemory, UnsupportedQuantisation, WorkerError
from easel.worker.footprint import Footprint
from easel.worker.sketch import ModelSketch, sketch_directory, sketch_preset
from easel.worker.storage import Storage

AREA = "sizes"
CPU, GPU = torch.device("cpu"), torch.device("cuda")
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the model would run."""

    name: str
    memory: int  # bytes a replica may take
    choose: bool  # slots and pages are to fill it, rather than a CPU's default
    device: torch.device = CPU


def examine_sizes(
    model: Path | None, preset: str | None, device_memory: str | None, dtype: str
) -> list[Finding]:
    """What the command line asks for; nothing where the model's configuration cannot be read.

    Raises UnknownName for a preset, ConfigError for an amount of memory.
    """
    device = choose_device("auto")
    memory = None if device_memory is None else parse_bytes(device_memory)
    try:
        sketch = sketch_of(model, preset)
    except UnsupportedQuantisation as error:
        return [Finding(AREA, "weights", Verdict.BROKEN, str(error), "take the model in a form that is read")]
    except CheckpointError:
        return []  # which the findings about the model's files say
    if preset is not None and dtype == "auto":
        dtype = "bfloat16"  # which published models are stored in
    place = Place(
        name=f"this machine's {device.type.upper()}" if memory is None else f"a device of {device_memory}",
        memory=usable_memory(device) if memory is None else int(memory * (1.0 - RESERVE)),
        choose=memory is not None or device.type == "cuda",
        device=device if memory is None else GPU,
    )
    config = EngineConfig()
    chosen = choose_dtype(dtype, device, cpu_features())
    storage = choose_storage(config, device, chosen, cpu_features())
    if memory is not None:  # which a model stored in float8 is to be sized for
        storage = Storage(float8=True)
    return list(size_findings(sketch, config, chosen, place, storage))


def sketch_of(model: Path | None, preset: str | None) -> ModelSketch:
    """The model named either way. Raises CheckpointError, UnknownName, or ConfigError if both are given."""
    if (model is None) == (preset is None):
        raise ConfigError("--preset", "give either a model directory or a preset.")
    return sketch_preset(preset) if preset is not None else sketch_directory(model or Path())


def parse_bytes(text: str) -> int:
    """An amount such as 80GiB, 24 GB or 1048576. Raises ConfigError."""
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        raise ConfigError("--device-memory", f"{text!r} is no amount such as 80GiB or 24GB.") from None


def size_findings(
    sketch: ModelSketch,
    config: EngineConfig,
    dtype: torch.dtype,
    place: Place,
    storage: Storage | None = None,
) -> Iterator[Finding]:
    """One line for each size that decides where a model can run."""
    try:
        footprint = Footprint.of(sketch, config, dtype, storage, device=place.device)
        slot, page_size = footprint.slot(), footprint.page_size
    except WorkerError as error:
        yield Finding(AREA, "fits", Verdict.BROKEN, str(error), "change the setting that it names")
        return
    info, anatomy = sketch.info, sketch.anatomy
    layout = info.family.layout.replace("_", "-")
    facts = {
        "family": f"{info.family.name} ({info.architecture}), {layout}, blocks of {info.block_length}",
        "parameters": f"{billions(anatomy.parameters)}, of which a token meets {billions(anatomy.active)}",
        "weights": f"{readable(footprint.weights)} in {_kinds(footprint)}",
        "each slot": f"{readable(sum(slot.values()))}: {listed(slot)}",
        "prefix": f"{readable(footprint.page * 1000 / page_size)} per 1,000 tokens, pages of {page_size}",
    }
    yield from (Finding(AREA, name, Verdict.OK, detail) for name, detail in facts.items())
    yield _fit(footprint, place)


def fitting(footprint: Footprint, memory: int) -> tuple[int, int]:
    """Slots and pages of a replica that may take `memory` bytes; (0, 0) when it cannot be."""
    try:
        found = allocate(footprint, memory, choose=True)
    except NotEnoughMemory:
        return 0, 0
    return found.shape.slots, found.shape.pages


def readable(size: float) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    unit = 0
    while abs(size) >= 1024 and unit + 1 < len(UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size:,.0f} {UNITS[unit]}" if unit == 0 else f"{size:,.1f} {UNITS[unit]}"


def billions(count: int) -> str:
    """A number of parameters."""
    return f"{count / 1e9:.2f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"


def listed(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} {readable(size)}" for name, size in parts.items())


def _kinds(footprint: Footprint) -> str:
    """The dtypes that most of the weights are in."""
    dtype = str(footprint.dtype).removeprefix("torch.")
    return f"float8 and {dtype}" if footprint.plan.float8 else dtype


def _fit(footprint: Footprint, place: Place) -> Finding:
    try:
        found = allocate(footprint, place.memory, choose=place.choose)
    except NotEnoughMemory as error:
        needed = f"{readable(sum(error.parts.values()))} are needed: {listed(error.parts)}"
        detail = f"not on {place.name} with {readable(place.memory)} to be had; {needed}"
        return Finding(AREA, "fits", Verdict.BROKEN, detail, error.advice)
    shape = found.shape
    detail = (
        f"{shape.slots} slots and {shape.pages:,} pages ({shape.pages * shape.page_size:,} prefix tokens) on "
        f"{place.name}: {readable(found.total)} of {readable(found.memory)}; {listed(found.parts)}"
    )
    return Finding(AREA, "fits", Verdict.OK, detail)
