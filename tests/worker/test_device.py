"""Which dtype suits a machine, by what its system says of it."""

from pathlib import Path

import pytest
import torch

from easel.kernels.linear import packs
from easel.worker.config import EngineConfig
from easel.worker.device import (
    choose_dtype,
    choose_storage,
    cpu_features,
    multiplies_float8,
    usable_cores,
)
from easel.worker.errors import WorkerError
from easel.worker.storage import Storage

CPU = torch.device("cpu")
NONE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n",
            "avx512_bf16",
        ),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", "bf16"),
    ],
    ids=["x86", "Arm"],
)
def test_features_are_those_of_the_first_core(tmp_path: Path, text: str, feature: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert feature in cpu_features(file)
    assert choose_dtype("auto", CPU, cpu_features(file)) is torch.bfloat16


@pytest.mark.parametrize("text", [None, "", "processor : 0\nmodel name : flags of no kind\n"])
def test_a_system_that_lists_no_features_has_none(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert cpu_features(file) == NONE


def test_auto_is_bfloat16_only_where_the_hardware_multiplies_it() -> None:
    assert choose_dtype("auto", CPU, NONE) is torch.float32
    assert choose_dtype("auto", CPU, frozenset({"avx2", "avx512f"})) is torch.float32
    assert choose_dtype("auto", CPU, frozenset({"amx_bf16"})) is torch.bfloat16
    assert choose_dtype("auto", torch.device("cuda"), NONE) is torch.bfloat16


def test_a_dtype_that_is_named_is_taken_whatever_the_hardware() -> None:
    assert choose_dtype("bfloat16", CPU, NONE) is torch.bfloat16
    assert choose_dtype("float32", torch.device("cuda"), frozenset({"amx_bf16"})) is torch.float32


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WorkerError, match="'float16'; it must be one of auto, float32, bfloat16"):
        choose_dtype("float16", CPU, NONE)


def test_a_process_may_run_on_at_least_one_core() -> None:
    assert usable_cores() >= 1


@pytest.mark.parametrize("features", [NONE, frozenset({"amx_bf16"})])
def test_auto_packs_bfloat16_where_a_cpu_multiplies_it_and_never_float32(features: frozenset[str]) -> None:
    found = choose_storage(EngineConfig(), CPU, torch.bfloat16, features)
    assert found == Storage(packed=bool(features) and packs(torch.bfloat16))
    assert choose_storage(EngineConfig(), CPU, torch.float32, features) == Storage()


def test_packing_can_be_asked_for_and_declined() -> None:
    always, never = EngineConfig(pack_weights="always"), EngineConfig(pack_weights="never")
    assert choose_storage(never, CPU, torch.bfloat16, frozenset({"amx_bf16"})) == Storage()
    assert choose_storage(always, CPU, torch.float32, NONE) == Storage(packed=True)
    with pytest.raises(WorkerError, match="packs no float64 for this CPU; set it to auto"):
        choose_storage(always, CPU, torch.float64, NONE)


def test_a_cpu_computes_with_what_float8_numbers_mean() -> None:
    assert not multiplies_float8(CPU)
    assert choose_storage(EngineConfig(quantise="fp8"), CPU, torch.float32, NONE) == Storage(quantise=True)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (EngineConfig(quantise="int4"), "quantise is 'int4'; it must be one of none, fp8"),
        (EngineConfig(pack_weights="on"), "pack_weights is 'on'; it must be one of auto, always, never"),
    ],
)
def test_an_unknown_storage_is_refused_with_the_known_ones(config: EngineConfig, problem: str) -> None:
    with pytest.raises(WorkerError, match=problem):
        choose_storage(config, CPU, torch.float32, NONE)
