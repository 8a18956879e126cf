"""How many slots and pages a replica gets, and what is said when they would not fit."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from easel.worker.allocation import CPU_PAGES, CPU_SLOTS, allocate, allocation, usable_memory
from easel.worker.config import EngineConfig
from easel.worker.device import choose_device
from easel.worker.errors import NotEnoughMemory, WorkerError
from easel.worker.footprint import Footprint
from easel.worker.loading import load_engine
from easel.worker.sketch import sketch_preset
from tests.worker.storage_meter import StorageMeter
from tests.worker.tiny import TinyCheckpoint

GIB = 2**30
CPU = torch.device("cpu")


def footprint(preset: str = "SDAR-1.7B-Chat", config: EngineConfig | None = None) -> Footprint:
    return Footprint.of(sketch_preset(preset), config or EngineConfig(), torch.bfloat16)


def test_a_cpu_gets_its_usual_numbers_when_they_fit() -> None:
    found = allocate(footprint(), 64 * GIB, choose=False)
    assert (found.shape.slots, found.shape.pages) == (CPU_SLOTS, CPU_PAGES)
    assert found.total <= found.memory


def test_a_cpu_gets_what_fits_when_its_usual_numbers_do_not() -> None:
    found = footprint("LLaDA-8B-Instruct")
    usual = found.total(CPU_SLOTS, CPU_PAGES)
    less = allocate(found, usual - GIB, choose=False)
    assert less.total <= usual - GIB
    assert (less.shape.slots, less.shape.pages) != (CPU_SLOTS, CPU_PAGES)


def test_memory_that_is_named_is_filled() -> None:
    found = allocate(footprint(), 20 * GIB, choose=True)
    assert found.shape.slots > CPU_SLOTS
    assert found.shape.pages * found.shape.page_size >= 4096 * found.shape.slots
    assert 0.99 * 20 * GIB < found.total <= 20 * GIB


@pytest.mark.parametrize("choose", [False, True])
def test_numbers_that_are_given_are_kept(choose: bool) -> None:
    found = allocate(footprint(config=EngineConfig(slots=3, pages=50)), 20 * GIB, choose=choose)
    assert (found.shape.slots, found.shape.pages) == (3, 50)
    assert allocate(footprint(config=EngineConfig(slots=3)), 20 * GIB, choose=choose).shape.slots == 3
    assert allocate(footprint(config=EngineConfig(pages=2048)), 20 * GIB, choose=choose).shape.pages == 2048


def test_the_memory_of_the_configuration_counts_and_not_the_machines() -> None:
    found = allocation(footprint(config=EngineConfig(memory=9 * GIB)), CPU)
    assert found.memory == 9 * GIB
    assert found.total <= 9 * GIB


def test_some_of_a_machines_memory_is_left_alone() -> None:
    assert 0 < usable_memory(CPU) < torch.iinfo(torch.int64).max


def test_what_does_not_fit_is_refused_with_its_parts_and_what_to_change() -> None:
    config = EngineConfig(slots=8, pages=1 << 18)
    with pytest.raises(NotEnoughMemory, match=r"pages 112\.00 GiB") as caught:
        allocate(footprint(config=config), 64 * GIB, choose=True)
    assert set(caught.value.parts) == {"weights", "slots", "pages", "workspace"}
    assert "engine.pages" in str(caught.value)


def test_weights_that_are_too_large_need_another_device() -> None:
    with pytest.raises(NotEnoughMemory, match="a device with more memory"):
        allocate(footprint("LLaDA2.0-flash"), 64 * GIB, choose=True)


def test_the_error_reaches_another_process_whole() -> None:
    error = NotEnoughMemory({"weights": 3 * GIB}, GIB, "take more")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 our own bytes
    assert (str(copy), copy.parts, copy.available) == (str(error), error.parts, GIB)
    assert "3.00 GiB are needed" in str(error)


def test_nothing_is_allocated_before_it_is_known_to_fit(tiny: TinyCheckpoint) -> None:
    config = EngineConfig(slots=2, pages=64, memory=1 << 16, dtype="float32")
    with StorageMeter() as meter, pytest.raises(NotEnoughMemory):
        load_engine(tiny.path, config)
    assert meter.peak < 1 << 12, "sizes alone"


def test_an_engine_has_the_numbers_that_were_chosen(tiny: TinyCheckpoint) -> None:
    config = EngineConfig(memory=1 << 26, dtype="float32")
    engine = load_engine(tiny.path, config)
    assert engine.shape.slots > CPU_SLOTS
    assert load_engine(tiny.path, replace(config, memory=None)).shape.slots == CPU_SLOTS


def test_a_device_is_chosen_by_name() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(WorkerError, match="device is 'tpu'; it must be one of auto, cpu, cuda"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(tiny: TinyCheckpoint) -> None:
    with pytest.raises(WorkerError, match="torch sees no GPU here"):
        load_engine(tiny.path, EngineConfig(device="cuda"))


def test_a_directory_of_no_model_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"config\.json is missing"):
        load_engine(tmp_path, EngineConfig(memory=1))
