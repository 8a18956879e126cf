"""Published models: their configurations are read as a checkpoint's are, and give the published sizes."""

import pytest
import torch

from easel.scheduler.phase import SequenceLayout
from easel.worker.errors import UnknownName
from easel.worker.families import FAMILIES
from easel.worker.presets import preset_names, read_preset
from easel.worker.sketch import sketch_preset

# Parameters and those a token meets, in billions, as their authors and the tensors' shapes have them.
SIZES = {
    "DiffusionGemma-26B-A4B": (25.25, 3.84),
    "Dream-7B-Instruct": (7.62, 7.62),
    "LLaDA-8B-Instruct": (8.02, 8.02),
    "LLaDA2.0-flash": (102.9, 6.15),
    "LLaDA2.0-mini": (16.26, 1.43),
    "SDAR-1.7B-Chat": (2.03, 2.03),
    "SDAR-30B-A3B-Chat": (30.5, 3.35),
    "SDAR-4B-Chat": (4.41, 4.41),
    "SDAR-8B-Chat": (8.19, 8.19),
}
# KiB of keys and values a token, in bfloat16, per KV group.
CACHE = {
    "DiffusionGemma-26B-A4B": [20, 200],
    "LLaDA2.0-flash": [64],
    "LLaDA2.0-mini": [40],
    "SDAR-1.7B-Chat": [112],
}


def test_every_preset_has_a_size_to_be_checked_against() -> None:
    assert set(preset_names()) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_preset_has_its_published_size(name: str) -> None:
    sketch = sketch_preset(name)
    parameters, active = SIZES[name]
    assert sketch.plan.count / 1e9 == pytest.approx(parameters, rel=1.5e-3)
    assert sketch.anatomy.active / 1e9 == pytest.approx(active, rel=2.5e-3)


@pytest.mark.parametrize("name", SIZES)
def test_what_is_counted_is_what_is_loaded(name: str) -> None:
    sketch = sketch_preset(name)
    assert sketch.anatomy.parameters == sketch.plan.count


@pytest.mark.parametrize("name", CACHE)
def test_a_token_of_prefix_takes_what_its_layers_store(name: str) -> None:
    groups = sketch_preset(name).dimensions.kv_groups
    assert [group.bytes_per_token(torch.bfloat16) / 1024 for group in groups] == CACHE[name]


def test_every_family_has_a_preset() -> None:
    assert {read_preset(name).info().architecture for name in preset_names()} == set(FAMILIES)


def test_generation_settings_are_read_too() -> None:
    info = read_preset("DiffusionGemma-26B-A4B").info()
    assert info.eos_token_ids == {1, 106, 50}
    assert (info.block_length, info.diffusion.steps, info.diffusion.stop_entropy) == (256, 48, 0.005)
    assert info.family.layout is SequenceLayout.CAUSAL


def test_case_does_not_matter() -> None:
    assert read_preset("sdar-8b-chat").name == "SDAR-8B-Chat"


def test_an_unknown_name_is_refused_with_all_there_are_and_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"'sdar-8b'.*LLaDA2\.0-mini.*Did you mean SDAR-8B-Chat\?"):
        read_preset("sdar-8b")
