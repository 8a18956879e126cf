"""Weights: safetensors only, one file or shards, every tensor checked by name and shape."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from easel.worker.errors import (
    CheckpointError,
    MissingFile,
    TensorMismatch,
    UnreadableWeights,
    UnsafeCheckpoint,
)
from easel.worker.weights import load_weights, weight_files
from tests.worker.values import save_tensors

CPU = torch.device("cpu")
TENSORS = {
    "embed.weight": torch.arange(12, dtype=torch.float32).view(4, 3) / 7,
    "layer.0.weight": torch.full((5,), 0.1),
    "layer.1.weight": torch.full((2, 2), -3.0),
}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


def test_a_single_file_is_read(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "model.safetensors")
    _assert_loaded(_load(tmp_path))


def test_shards_are_read_each_once_as_the_index_lists_them(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    assert [file.name for file in weight_files(tmp_path)] == ["a.safetensors", "b.safetensors"]
    _assert_loaded(_load(tmp_path))


def test_the_index_wins_over_a_single_file_beside_it(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    save_tensors({"other": torch.zeros(1)}, tmp_path / "model.safetensors")
    _assert_loaded(_load(tmp_path))


def test_weights_are_converted_to_the_dtype_asked_for(tmp_path: Path) -> None:
    save_tensors(
        {name: tensor.bfloat16() for name, tensor in TENSORS.items()}, tmp_path / "model.safetensors"
    )
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_weights(tmp_path, SHAPES, dtype, CPU)
        for name, tensor in TENSORS.items():
            assert torch.equal(loaded[name], tensor.bfloat16().to(dtype)), name


def test_loaded_weights_do_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_tensors(TENSORS, file)
    loaded = _load(tmp_path)
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.write(b"\xff" * size)
    _assert_loaded(loaded)


def test_progress_counts_every_tensor(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "model.safetensors")
    seen: list[tuple[int, int]] = []
    load_weights(
        tmp_path, SHAPES, torch.float32, CPU, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_missing_tensor_is_named_with_its_shape(tmp_path: Path) -> None:
    save_tensors({name: TENSORS[name] for name in list(TENSORS)[:2]}, tmp_path / "model.safetensors")
    with pytest.raises(
        TensorMismatch, match=r"'layer.1.weight': expected shape \(2, 2\), found nothing"
    ) as error:
        _load(tmp_path)
    assert error.value.name == "layer.1.weight"


def test_an_extra_tensor_is_named(tmp_path: Path) -> None:
    save_tensors({**TENSORS, "lm_head.bias": torch.zeros(4)}, tmp_path / "model.safetensors")
    with pytest.raises(TensorMismatch, match=r"'lm_head.bias': expected no such tensor, found shape \(4,\)"):
        _load(tmp_path)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3, 1), (12,)])
def test_a_tensor_of_another_shape_is_named_with_both(tmp_path: Path, shape: tuple[int, ...]) -> None:
    wrong = TENSORS["embed.weight"].reshape(shape)
    save_tensors({**TENSORS, "embed.weight": wrong}, tmp_path / "model.safetensors")
    with pytest.raises(TensorMismatch) as error:
        _load(tmp_path)
    assert (error.value.name, error.value.expected, error.value.found) == (
        "embed.weight",
        "shape (4, 3)",
        f"shape {shape}",
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(_Explosive()))
    with pytest.raises(UnsafeCheckpoint, match=r"is a pickle.*convert it to safetensors") as error:
        _load(tmp_path)
    assert error.value.path == tmp_path / name


def test_a_pickle_by_the_name_of_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(_Explosive()))
    with pytest.raises(UnreadableWeights, match="cannot be read as safetensors") as error:
        _load(tmp_path)
    assert error.value.path == tmp_path / "model.safetensors"


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_tensors(TENSORS, file)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UnreadableWeights, match=r"model\.safetensors cannot be read"):
        _load(tmp_path)


def test_a_directory_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="it holds the weights") as error:
        _load(tmp_path)
    assert error.value.path == tmp_path / "model.safetensors"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(MissingFile) as error:
        _load(tmp_path)
    assert error.value.path == tmp_path / "b.safetensors"


def test_every_problem_with_weights_is_a_checkpoint_error() -> None:
    for error in (MissingFile, TensorMismatch, UnreadableWeights, UnsafeCheckpoint):
        assert issubclass(error, CheckpointError)


class _Explosive:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("the pickle was opened",)


def _write_shards(path: Path) -> None:
    names = list(TENSORS)
    save_tensors({names[0]: TENSORS[names[0]], names[1]: TENSORS[names[1]]}, path / "b.safetensors")
    save_tensors({names[2]: TENSORS[names[2]]}, path / "a.safetensors")
    index = {"weight_map": dict(zip(names, ["b.safetensors", "b.safetensors", "a.safetensors"], strict=True))}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def _load(path: Path) -> dict[str, Tensor]:
    return load_weights(path, SHAPES, torch.float32, CPU)


def _assert_loaded(loaded: Mapping[str, Tensor]) -> None:
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(loaded[name], tensor), name
