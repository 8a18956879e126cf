"""LLaDA 2 (Bie et al., 2025): a mixture of experts of the Bailing kind, read block by block."""

from collections.abc import Mapping
from typing import Any

from easel.worker.models.config import (
    DecoderConfig,
    Experts,
    Router,
    decoder_config,
    refuse_unless,
    required,
    rope_parameters,
)
from easel.worker.models.plan import TensorNames, decoder_plan
from easel.worker.parameters import ParameterPlan

NAMES = TensorNames(
    embedding="model.word_embeddings",
    qkv=("attention.query_key_value",),
    query_norm="attention.query_layernorm",
    key_norm="attention.key_layernorm",
    out="attention.dense",
)


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """The model's dimensions. Raises CheckpointError."""
    refuse_unless(
        config,
        {
            "use_bias": (False, None),
            "norm_head": (False, None),
            "norm_topk_prob": (True, None),
            "score_function": ("sigmoid", None),
            "moe_router_enable_expert_bias": (True, None),
        },
    )
    size = int(required(config, "moe_intermediate_size"))
    experts = Experts(
        count=int(required(config, "num_experts")),
        chosen=int(required(config, "num_experts_per_tok")),
        intermediate_size=size,
        shared_size=size * int(config.get("num_shared_experts") or 0),
        router=Router.GROUPED_SIGMOID,
        groups=int(required(config, "n_group")),
        groups_chosen=int(required(config, "topk_group")),
        scale=float(required(config, "routed_scaling_factor")),
    )
    return decoder_config(
        config,
        qk_norm=bool(config.get("use_qk_norm", True)),
        qkv_bias=bool(config.get("use_qkv_bias", False)),
        rotary_share=_rotary_share(config),
        experts=experts,
        dense_layers=int(required(config, "first_k_dense_replace")),
    )


def parameter_plan(config: DecoderConfig) -> ParameterPlan:
    """Tensors by the published names."""
    return decoder_plan(config, NAMES)


def _rotary_share(config: Mapping[str, Any]) -> float:
    """A model's own files write `partial_rotary_factor` at the top, transformers 5 beside the angle base."""
    share = config.get("partial_rotary_factor", rope_parameters(config).get("partial_rotary_factor"))
    if share is None:
        return int(required(config, "rotary_dim")) / int(required(config, "head_dim"))
    return float(share)
