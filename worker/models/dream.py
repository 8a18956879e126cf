"""Dream (Ye et al., 2025): Qwen2.5, every token of a sequence seeing every other."""

from collections.abc import Mapping
from typing import Any

from easel.worker.models.config import DecoderConfig, decoder_config
from easel.worker.models.plan import TensorNames, decoder_plan
from easel.worker.parameters import ParameterPlan


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """The model's dimensions. Raises CheckpointError."""
    return decoder_config(config, qk_norm=False, qkv_bias=True)


def parameter_plan(config: DecoderConfig) -> ParameterPlan:
    """Tensors by the names of Qwen2."""
    return decoder_plan(config, TensorNames())
