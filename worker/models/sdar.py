"""SDAR (Cheng et al., 2025): Qwen3, or Qwen3-MoE, read block by block."""

from collections.abc import Mapping
from typing import Any

from easel.worker.models.config import (
    DecoderConfig,
    Experts,
    Router,
    decoder_config,
    first_of,
    refuse_unless,
    required,
)
from easel.worker.models.plan import TensorNames, decoder_plan
from easel.worker.parameters import ParameterPlan


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """The dense model's dimensions. Raises CheckpointError."""
    refuse_unless(config, {"attention_bias": (False, None)})
    return decoder_config(config, qk_norm=True, qkv_bias=False)


def read_moe_config(config: Mapping[str, Any]) -> DecoderConfig:
    """SDAR-MoE's dimensions: experts in every layer. Raises CheckpointError."""
    refuse_unless(
        config,
        {"attention_bias": (False, None), "decoder_sparse_step": (1, None), "mlp_only_layers": ([], None)},
    )
    experts = Experts(
        count=int(first_of(config, "num_experts", "num_local_experts")),  # transformers 5 writes the latter
        chosen=int(required(config, "num_experts_per_tok")),
        intermediate_size=int(required(config, "moe_intermediate_size")),
        shared_size=0,
        router=Router.SOFTMAX,
        renormalise=bool(required(config, "norm_topk_prob")),
    )
    return decoder_config(config, qk_norm=True, qkv_bias=False, experts=experts)


def parameter_plan(config: DecoderConfig) -> ParameterPlan:
    """Tensors by the names of Qwen3 and Qwen3-MoE."""
    return decoder_plan(config, TensorNames())
