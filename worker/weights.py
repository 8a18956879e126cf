"""Parameters from safetensors files: each tensor is copied once, straight into its place."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from easel.kernels.linear import pack
from easel.worker.errors import (
    CheckpointError,
    MissingFile,
    TensorMismatch,
    UnreadableWeights,
    UnsafeCheckpoint,
)
from easel.worker.model_info import read_json
from easel.worker.parameters import Fill, ParameterPlan
from easel.worker.storage import fill

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})  # others are quantised: their numbers need scales
FLOAT8 = frozenset({"F8_E4M3"})

Progress = Callable[[int, int], None]  # tensors read so far, tensors in all


@dataclass(frozen=True, slots=True)
class _Shard:
    """A file, and the tensors of it that are read."""

    file: Path
    names: tuple[str, ...]


def load_parameters(
    path: Path,
    plan: ParameterPlan,
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Fill every parameter of the plan from a Hugging Face directory.

    Names and shapes of all files are checked before anything is allocated. Files are
    memory-mapped one at a time, so host memory peaks at the parameters (if they lie there) plus
    the largest file. Raises MissingFile, UnsafeCheckpoint, UnreadableWeights, or TensorMismatch
    for a tensor that is missing, unexpected, there twice, of another shape, or quantised where
    the plan does not say so.
    """
    shards = [_checked(file, names, plan) for file, names in _listed(path).items()]
    _check_each_once(shards, plan)
    parameters = {
        name: torch.empty(shape, dtype=plan.dtype_of(name, dtype), device=device)
        for name, shape in plan.parameters.items()
    }
    for done, (name, opened) in enumerate(_places(shards, plan), 1):
        fill(parameters, plan.sources[name], opened.get_tensor(name))
        if progress is not None:
            progress(done, len(plan.sources))
    for name in plan.packed:
        parameters[name] = pack(parameters[name])
    return parameters


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or several. Raises MissingFile or UnsafeCheckpoint."""
    return list(_listed(path))


def _listed(path: Path) -> dict[Path, frozenset[str]]:
    """Each file and the tensors that the index says are in it; no index: one file, nothing said."""
    index = path / INDEX_FILE
    if not index.exists():
        return {_single(path): frozenset()}
    names: dict[Path, set[str]] = {}
    for name, file in sorted(_weight_map(index).items(), key=lambda item: (item[1], item[0])):
        names.setdefault(path / file, set()).add(name)
    for file in names:
        if not file.exists():
            raise MissingFile(file, f"{INDEX_FILE} says that it holds weights")
    return {file: frozenset(of_file) for file, of_file in names.items()}


def _single(path: Path) -> Path:
    file = path / SINGLE_FILE
    if not file.exists():
        pickled = next((found for pattern in PICKLE_PATTERNS for found in sorted(path.glob(pattern))), None)
        if pickled is not None:
            raise UnsafeCheckpoint(pickled)
        raise MissingFile(file, "it holds the weights")
    return file


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index, "it lists the shards").get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{index} has no weight_map; download it again.")
    return cast(dict[str, str], found)


def _checked(file: Path, listed: frozenset[str], plan: ParameterPlan) -> _Shard:
    """Compare a file's header with the index and the plan; tensors are not read."""
    with _opened(file) as opened:
        names: list[str] = list(opened.keys())
        read = tuple(name for name in names if not name.startswith(plan.ignored))
        for name in sorted(listed - set(names)):
            if not name.startswith(plan.ignored):
                raise TensorMismatch(name, f"in {file.name}, as {INDEX_FILE} says", "nothing there")
        for name in read:
            part = opened.get_slice(name)
            _check_tensor(name, tuple(part.get_shape()), part.get_dtype(), plan)
    return _Shard(file, read)


def _check_tensor(name: str, shape: tuple[int, ...], kind: str, plan: ParameterPlan) -> None:
    if name not in plan.sources:
        raise TensorMismatch(name, "no such tensor", f"shape {shape}")
    source = plan.sources[name]
    same = _wide(shape) == _wide(source.shape) if source.is_scale else shape == source.shape
    if not same:
        raise TensorMismatch(name, f"shape {source.shape}", f"shape {shape}")
    kinds = FLOAT8 if source.float8 else FLOATS
    if kind not in kinds:
        raise TensorMismatch(name, f"one of {', '.join(sorted(kinds))}", kind)


def _wide(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions that are not 1: formats differ in how many of the others they write."""
    return tuple(size for size in shape if size != 1)


def _check_each_once(shards: list[_Shard], plan: ParameterPlan) -> None:
    where: dict[str, Path] = {}
    for shard in shards:
        for name in shard.names:
            if name in where:
                raise TensorMismatch(name, f"only in {where[name].name}", f"another in {shard.file.name}")
            where[name] = shard.file
    for name, source in plan.sources.items():
        if name not in where:
            raise TensorMismatch(name, f"shape {source.shape}", "nothing")


def _places(shards: list[_Shard], plan: ParameterPlan) -> Generator[tuple[str, Any], None, None]:
    """Every tensor's name and its opened file, one file at a time.

    What multiplies numbers comes after all numbers.
    """
    scales = {name for name, source in plan.sources.items() if source.fill is Fill.SCALE}
    for turn in (plan.sources.keys() - scales, scales):
        for shard in shards:
            if turn.isdisjoint(shard.names):
                continue
            with _opened(shard.file) as opened:
                for name in shard.names:
                    if name in turn:
                        yield name, opened


@contextmanager
def _opened(file: Path) -> Generator[Any, None, None]:
    """A file mapped into memory; the mapping ends with the last tensor of it."""
    try:
        opened = safe_open(file, framework="pt")
    except SafetensorError as error:
        raise UnreadableWeights(file, str(error)) from None
    with opened:
        yield opened
