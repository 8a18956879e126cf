"""What is measured on an H200: the shapes of published models, and weights that are made on the device.

The dry run has the same models with every dimension shrunk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from easel.kernels.fp8 import quantise_channels
from easel.worker.model_info import model_info
from easel.worker.models.registry import definition_of
from easel.worker.parameters import ParameterPlan, scale_of
from easel.worker.presets import read_preset
from easel.worker.sketch import ModelSketch
from easel.worker.storage import Storage

GEMMA, SDAR = "DiffusionGemma-26B-A4B", "SDAR-1.7B-Chat"
QUIET = 0.3  # of norms after attention and MLPs, so that 30 random layers do not drown their input
TINY_TEXT: Mapping[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 8,
    "global_head_dim": 16,
    "num_experts": 8,
    "top_k_experts": 3,
    "moe_intermediate_size": 16,
    "sliding_window": 24,
    "max_position_embeddings": 512,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}
TINY_DECODER: Mapping[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "mask_token_id": 95,
    "eos_token_id": 1,
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is."""

    tiny: bool
    dtype: torch.dtype
    prefix: int  # tokens before each canvas
    page_size: int
    gemma_steps: int  # of each canvas
    gemma_canvases: tuple[int, ...]
    sdar_blocks: tuple[int, ...]
    sdar_canvases: tuple[int, ...]
    demo_steps: int | None  # None: one position a step
    rounds: int

    def gemma(self) -> "Shape":
        """DiffusionGemma-26B-A4B."""
        preset = read_preset(GEMMA)
        if not self.tiny:
            return shape_of(GEMMA, preset.config, preset.generation)
        text = {**preset.config["text_config"], **TINY_TEXT}
        return shape_of(GEMMA, {**preset.config, "text_config": text, "canvas_length": 8}, preset.generation)

    def sdar(self, block: int) -> "Shape":
        """SDAR-1.7B with blocks of another length."""
        preset = read_preset(SDAR)
        config = {**preset.config, **(TINY_DECODER if self.tiny else {}), "block_size": block}
        return shape_of(SDAR, config, dict[str, Any]() if self.tiny else preset.generation)


FULL = Scale(
    tiny=False,
    dtype=torch.bfloat16,
    prefix=1024,
    page_size=64,
    gemma_steps=16,
    gemma_canvases=(1, 8, 32),
    sdar_blocks=(4, 32),
    sdar_canvases=(1, 8, 128),
    demo_steps=None,
    rounds=5,
)
DRY = Scale(
    tiny=True,
    dtype=torch.float32,
    prefix=32,
    page_size=8,
    gemma_steps=3,
    gemma_canvases=(1, 2),
    sdar_blocks=(4, 8),
    sdar_canvases=(1, 2),
    demo_steps=2,
    rounds=1,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model without weights, and the `config.json` it is from."""

    sketch: ModelSketch
    config: Mapping[str, Any]


def shape_of(name: str, config: Mapping[str, Any], generation: Mapping[str, Any]) -> Shape:
    """The shape that two JSON files of a checkpoint describe."""
    info = model_info(config, generation, Path(name), name)
    definition = definition_of(info.architecture)
    dimensions = definition.read_config(config)
    return Shape(ModelSketch(info, dimensions, definition.parameter_plan(dimensions)), config)


@torch.no_grad()
def random_parameters(
    plan: ParameterPlan, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> dict[str, Tensor]:
    """Every parameter of the plan, the same for the same seed and device.

    Matrices are normal with variance 1 / inputs; norms, scales and scalars are around 1. Of the norms
    that come after attention and MLPs only a part is let through.
    """
    generator = torch.Generator(device).manual_seed(seed)
    found: dict[str, Tensor] = {}
    for name, shape in plan.parameters.items():
        parameter = torch.empty(shape, dtype=plan.dtype_of(name, dtype), device=device)
        own = name.rpartition(".")[2]
        if own.endswith("norm") or "scal" in own:
            parameter.uniform_(0.8, 1.2, generator=generator)
            if own in ("attention_norm", "out_norm"):
                parameter.mul_(QUIET)
        else:
            parameter.normal_(std=shape[-1] ** -0.5, generator=generator)
        found[name] = parameter
    return found


@torch.no_grad()
def convert_to_fp8(sketch: ModelSketch, parameters: dict[str, Tensor]) -> None:
    """Matrices become float8 with a scale for each channel, as on loading; the plan says which.

    One after the other in place, so that no more than one of them is there twice.
    """
    for name in sorted(sketch.loaded(Storage(quantise=True, float8=True)).float8):
        found = quantise_channels(parameters.pop(name))
        parameters[name], parameters[scale_of(name)] = found.data, found.scale
