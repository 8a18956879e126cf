"""Tensors of a checkpoint, read from safetensors files and checked against what the model expects."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from easel.worker.errors import MissingFile, TensorMismatch, UnreadableWeights, UnsafeCheckpoint
from easel.worker.model_info import read_json

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")

Progress = Callable[[int, int], None]  # tensors read so far, tensors in all


def load_weights(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress | None = None,
    ignored: frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """Read every expected tensor of a Hugging Face directory, one at a time.

    `expected` maps names to shapes; tensors named in `ignored` may be there and are left out.
    Files are memory-mapped, so the peak is the result plus one tensor. Raises MissingFile,
    UnsafeCheckpoint, UnreadableWeights, or TensorMismatch for a tensor that is missing,
    unexpected or of another shape.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in _tensors(path, ignored):
        if name not in expected:
            raise TensorMismatch(name, "no such tensor", f"shape {tuple(tensor.shape)}")
        if tuple(tensor.shape) != expected[name]:
            raise TensorMismatch(name, f"shape {expected[name]}", f"shape {tuple(tensor.shape)}")
        # A copy even when the dtype agrees: a view would keep the file mapped.
        weights[name] = tensor.to(device=device, dtype=dtype, copy=True)
        if progress is not None:
            progress(len(weights), len(expected))
    for name, shape in expected.items():
        if name not in weights:
            raise TensorMismatch(name, f"shape {shape}", "nothing")
    return weights


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or several. Raises MissingFile or UnsafeCheckpoint."""
    if (path / INDEX_FILE).exists():
        index = read_json(path / INDEX_FILE, "it lists the shards")
        files = [path / name for name in sorted(set(index["weight_map"].values()))]
    else:
        files = [path / SINGLE_FILE]
    for file in files:
        if not file.exists():
            _refuse_pickle(path)
            raise MissingFile(file, "it holds the weights")
    return files


def _tensors(path: Path, ignored: frozenset[str]) -> Iterator[tuple[str, Tensor]]:
    for file in weight_files(path):
        try:
            opened = safe_open(file, framework="pt")
        except SafetensorError as error:
            raise UnreadableWeights(file, str(error)) from None
        with opened:
            for name in opened.keys():  # noqa: SIM118 - safe_open is not a mapping
                if name not in ignored:
                    yield name, opened.get_tensor(name)


def _refuse_pickle(path: Path) -> None:
    for pattern in PICKLE_PATTERNS:
        for file in path.glob(pattern):
            raise UnsafeCheckpoint(file)
