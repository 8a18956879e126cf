"""What each family loads: published names, and parameters that are covered exactly."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from easel.bench.oracles.checkpoints import Sizes
from easel.worker.model_info import read_json
from easel.worker.models.registry import definition_of
from easel.worker.parameters import ParameterPlan
from easel.worker.presets import read_preset
from tests.worker.models.backbones import WRITERS

# Published, or counted from the published dimensions.
BILLIONS = {
    "SDAR-1.7B-Chat": 2.03,
    "SDAR-4B-Chat": 4.41,
    "SDAR-8B-Chat": 8.19,
    "SDAR-30B-A3B-Chat": 30.53,
    "LLaDA2.0-mini": 16.26,
    "LLaDA2.0-flash": 102.89,
    "LLaDA-8B-Instruct": 8.02,
    "Dream-7B-Instruct": 7.62,
}


@pytest.mark.parametrize("architecture", WRITERS)
def test_the_sources_are_the_tensors_of_a_published_checkpoint(architecture: str, tmp_path: Path) -> None:
    WRITERS[architecture](tmp_path, Sizes())
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        theirs = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert {name: source.shape for name, source in _plan(tmp_path).sources.items()} == theirs


@pytest.mark.parametrize("architecture", WRITERS)
def test_the_parts_of_each_parameter_cover_it_once(architecture: str, tmp_path: Path) -> None:
    WRITERS[architecture](tmp_path, Sizes())
    plan = _plan(tmp_path)
    times = {name: torch.zeros(shape) for name, shape in plan.parameters.items()}
    for source in plan.sources.values():
        part = times[source.parameter][source.at]
        assert part.shape == source.shape
        part += 1
    for name, count in times.items():
        assert count.eq(1).all(), name


def test_a_tied_checkpoint_may_hold_the_head_as_well(tmp_path: Path) -> None:
    WRITERS["SDARForCausalLM"](tmp_path, Sizes(tied=True))
    plan = _plan(tmp_path)
    assert "lm_head.weight" not in plan.sources
    assert plan.ignored == ("lm_head.weight",)


@pytest.mark.parametrize("preset", BILLIONS)
def test_published_models_have_as_many_parameters_as_they_say(preset: str) -> None:
    fields = read_preset(preset).config
    definition = definition_of(fields["architectures"][0])
    plan = definition.parameter_plan(definition.read_config(fields))
    assert round(plan.count / 1e9, 2) == BILLIONS[preset]


def test_only_a_sigmoid_router_and_its_bias_stay_in_float32() -> None:
    for preset, kept in (("LLaDA2.0-mini", 2 * 19), ("SDAR-30B-A3B-Chat", 0)):
        fields = read_preset(preset).config
        definition = definition_of(fields["architectures"][0])
        plan = definition.parameter_plan(definition.read_config(fields))
        assert len(plan.float32) == kept
        exact = sum(plan.parameters[name][0] * _columns(plan, name) for name in plan.float32)
        assert plan.bytes(torch.bfloat16) == 2 * plan.count + 2 * exact


def _columns(plan: ParameterPlan, name: str) -> int:
    shape = plan.parameters[name]
    return shape[1] if len(shape) > 1 else 1


def _plan(path: Path) -> ParameterPlan:
    fields = read_json(path / "config.json", "it describes the model")
    definition = definition_of(fields["architectures"][0])
    return definition.parameter_plan(definition.read_config(fields))
