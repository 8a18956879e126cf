"""Tensors as lists of a known element type, and files of tensors, which torch's types leave open."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from safetensors.torch import load_file as _load_file  # pyright: ignore[reportUnknownVariableType]
from safetensors.torch import save_file as _save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor


def ints(tensor: Tensor) -> list[int]:
    return cast(list[int], tensor.tolist())


def floats(tensor: Tensor) -> list[float]:
    return cast(list[float], tensor.tolist())


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    _save_file(dict(tensors), path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    return _load_file(path)
