"""LLaDA (Nie et al., 2025): Llama with as many key heads as query heads, every token seeing every other.

Its configuration and tensors have OLMo's names.
"""

from collections.abc import Mapping
from typing import Any

from easel.worker.models.config import DecoderConfig, refuse_unless, required
from easel.worker.models.plan import TensorNames, decoder_plan
from easel.worker.parameters import ParameterPlan

NAMES = TensorNames(
    embedding="model.transformer.wte",
    final_norm="model.transformer.ln_f",
    head="model.transformer.ff_out",
    layer="model.transformer.blocks.{}.",
    input_norm="attn_norm",
    qkv=("q_proj", "k_proj", "v_proj"),
    out="attn_out",
    mlp_norm="ff_norm",
    mlp="",
    gate="ff_proj",
    up="up_proj",
    down="ff_out",
)


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """The model's dimensions. Raises CheckpointError."""
    refuse_unless(
        config,
        {
            "block_type": ("llama",),
            "activation_type": ("silu",),
            "layer_norm_type": ("rms",),
            "rope": (True,),
            "alibi": (False, None),
            "block_group_size": (1, None),
            "include_bias": (False, None),
            "bias_for_layer_norm": (False, None),
            "attention_layer_norm": (False, None),
            "input_emb_norm": (False, None),
            "scale_logits": (False, None),
            "multi_query_attention": (False, None),
        },
    )
    hidden, heads = int(required(config, "d_model")), int(required(config, "n_heads"))
    return DecoderConfig(
        vocab_size=int(config.get("embedding_size") or required(config, "vocab_size")),
        hidden_size=hidden,
        intermediate_size=int(config.get("mlp_hidden_size") or hidden * int(required(config, "mlp_ratio"))),
        layers=int(required(config, "n_layers")),
        heads=heads,
        kv_heads=int(config.get("n_kv_heads") or heads),
        head_dim=hidden // heads,
        rotary_dim=hidden // heads,
        rope_theta=float(required(config, "rope_theta")),
        rms_norm_eps=float(required(config, "rms_norm_eps")),
        max_positions=int(required(config, "max_sequence_length")),
        tied_embeddings=bool(required(config, "weight_tying")),
        qk_norm=False,
        qkv_bias=bool(config.get("include_qkv_bias", False)),
    )


def parameter_plan(config: DecoderConfig) -> ParameterPlan:
    """Tensors by the published names."""
    return decoder_plan(config, NAMES)
