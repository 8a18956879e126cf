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
from easel.worker.parameters import ParameterPlan, Source
from easel.worker.weights import load_parameters, weight_files
from tests.worker.values import save_tensors

CPU = torch.device("cpu")
TENSORS = {
    "embed.weight": torch.arange(12, dtype=torch.float32).view(4, 3) / 7,
    "layer.0.weight": torch.full((5,), 0.1),
    "layer.1.weight": torch.full((2, 2), -3.0),
}
PLAN = ParameterPlan(
    parameters={name: tuple(tensor.shape) for name, tensor in TENSORS.items()},
    sources={name: Source(tuple(tensor.shape), name) for name, tensor in TENSORS.items()},
    ignored=("tied.", "head.weight"),
)


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


def test_parts_of_a_parameter_lie_where_the_plan_says(tmp_path: Path) -> None:
    gates, ups = (torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    parts = {f"{expert}.gate": gates[expert] for expert in range(2)}
    parts |= {f"{expert}.up": ups[expert] for expert in range(2)}
    save_tensors({name: part.contiguous() for name, part in parts.items()}, tmp_path / "model.safetensors")
    places = {"gate": slice(0, 3), "up": slice(3, 6)}
    sources = {
        f"{expert}.{half}": Source((3, 5), "both", (expert, place))
        for expert in range(2)
        for half, place in places.items()
    }
    loaded = load_parameters(tmp_path, ParameterPlan({"both": (2, 6, 5)}, sources), torch.float32, CPU)
    assert torch.equal(loaded["both"], torch.cat((gates, ups), dim=1))


def test_weights_are_converted_to_the_dtype_asked_for_except_those_that_stay_exact(tmp_path: Path) -> None:
    stored = {name: tensor.bfloat16() for name, tensor in TENSORS.items()}
    stored["layer.0.weight"] = TENSORS["layer.0.weight"]
    save_tensors(stored, tmp_path / "model.safetensors")
    plan = ParameterPlan(PLAN.parameters, PLAN.sources, float32=frozenset({"layer.0.weight"}))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        loaded = load_parameters(tmp_path, plan, dtype, CPU)
        assert torch.equal(loaded["layer.0.weight"], TENSORS["layer.0.weight"])
        for name in ("embed.weight", "layer.1.weight"):
            assert torch.equal(loaded[name], stored[name].to(dtype)), name
            assert loaded[name].dtype == dtype


def test_loaded_weights_do_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_tensors(TENSORS, file)
    loaded = _load(tmp_path)
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.write(b"\xff" * size)
    _assert_loaded(loaded)


def test_progress_counts_every_tensor(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    seen: list[tuple[int, int]] = []
    load_parameters(
        tmp_path, PLAN, torch.float32, CPU, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_tensors_the_plan_ignores_may_be_there(tmp_path: Path) -> None:
    extra = {"tied.a": torch.zeros(2), "tied.b": torch.zeros(2), "head.weight": torch.zeros(2)}
    save_tensors({**TENSORS, **extra}, tmp_path / "model.safetensors")
    _assert_loaded(_load(tmp_path))


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


def test_quantised_numbers_are_refused(tmp_path: Path) -> None:
    quantised = {**TENSORS, "layer.0.weight": torch.ones(5, dtype=torch.int8)}
    save_tensors(quantised, tmp_path / "model.safetensors")
    with pytest.raises(TensorMismatch, match=r"'layer.0.weight': expected one of BF16, .*found I8"):
        _load(tmp_path)


def test_a_tensor_that_two_shards_hold_is_named_with_both(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    again = {"layer.1.weight": TENSORS["layer.1.weight"], "layer.0.weight": TENSORS["layer.0.weight"]}
    save_tensors(again, tmp_path / "a.safetensors")
    with pytest.raises(
        TensorMismatch,
        match=r"'layer.0.weight': expected only in a.safetensors, found another in b.safetensors",
    ):
        _load(tmp_path)


def test_a_tensor_that_the_index_puts_in_a_shard_without_it_is_named(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    save_tensors({"embed.weight": TENSORS["embed.weight"]}, tmp_path / "b.safetensors")
    with pytest.raises(
        TensorMismatch, match=r"'layer.0.weight': expected in b.safetensors, as model.*says, found nothing"
    ):
        _load(tmp_path)


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {}}', '{"weight_map": ["a"]}'])
def test_an_index_that_lists_nothing_is_refused(tmp_path: Path, index: str) -> None:
    _write_shards(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="has no weight_map"):
        _load(tmp_path)


def test_a_checkpoint_with_a_wrong_tensor_is_refused_before_any_is_read(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    save_tensors({**TENSORS, "layer.1.weight": torch.zeros(3)}, tmp_path / "b.safetensors")
    with pytest.raises(TensorMismatch):
        load_parameters(tmp_path, PLAN, torch.float32, CPU, progress=_must_not_be_called)


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


def test_a_missing_shard_is_not_taken_for_a_pickle_beside_it(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    (tmp_path / "training_args.bin").write_bytes(b"")
    with pytest.raises(MissingFile, match="says that it holds weights"):
        _load(tmp_path)


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
    return load_parameters(path, PLAN, torch.float32, CPU)


def _must_not_be_called(done: int, total: int) -> None:
    pytest.fail(f"tensor {done} of {total} was read")


def _assert_loaded(loaded: Mapping[str, Tensor]) -> None:
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(loaded[name], tensor), name
