"""Which code computes which architecture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from easel.worker.errors import UnsupportedArchitecture
from easel.worker.models import diffusion_gemma, dream, gemma_config, llada, llada2, sdar
from easel.worker.models.backbone import Backbone, BackboneConfig
from easel.worker.models.decoder import build_decoder
from easel.worker.parameters import ParameterPlan

C = TypeVar("C", bound=BackboneConfig)


@dataclass(frozen=True, slots=True)
class ModelDefinition(Generic[C]):
    """From `config.json` to a model: dimensions, what to load, and the model made of it."""

    read_config: Callable[[Mapping[str, Any]], C]
    parameter_plan: Callable[[C], ParameterPlan]
    build: Callable[[C, Mapping[str, Tensor]], Backbone]


MODELS: Mapping[str, ModelDefinition[Any]] = {
    "SDARForCausalLM": ModelDefinition(sdar.read_config, sdar.parameter_plan, build_decoder),
    "SDARMoeForCausalLM": ModelDefinition(sdar.read_moe_config, sdar.parameter_plan, build_decoder),
    "LLaDA2MoeModelLM": ModelDefinition(llada2.read_config, llada2.parameter_plan, build_decoder),
    "LLaDAModelLM": ModelDefinition(llada.read_config, llada.parameter_plan, build_decoder),
    "DreamModel": ModelDefinition(dream.read_config, dream.parameter_plan, build_decoder),
    "DiffusionGemmaForBlockDiffusion": ModelDefinition(
        gemma_config.read_config, diffusion_gemma.parameter_plan, diffusion_gemma.build_model
    ),
}


def definition_of(architecture: str) -> ModelDefinition[Any]:
    """Raises UnsupportedArchitecture."""
    if architecture not in MODELS:
        raise UnsupportedArchitecture(architecture, tuple(MODELS))
    return MODELS[architecture]
