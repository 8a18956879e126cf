"""Checkpoints of every layout with random weights, small but for the part that a test needs to be large."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from easel.worker.models.registry import definition_of
from easel.worker.presets import read_preset
from tests.worker.configs import write_config
from tests.worker.values import save_tensors

ENDLESS = 600  # end of sequence, outside the vocabulary: every request runs to its max_tokens
_COMMON: dict[str, Any] = {
    "hidden_size": 128,
    "vocab_size": 512,
    "eos_token_id": ENDLESS,
    "mask_token_id": 3,
    "block_size": 32,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 256,
    "max_position_embeddings": 256,
}


def smaller(preset: str, **changed: Any) -> dict[str, Any]:
    """A published model's `config.json` with other dimensions."""
    config = dict(read_preset(preset).config)
    text = config.get("text_config", {})
    if text:
        config["text_config"] = text | {name: value for name, value in changed.items() if name in text}
    return config | {name: value for name, value in changed.items() if name not in text}


SMALL: Mapping[str, dict[str, Any]] = {
    "SDAR": smaller("SDAR-8B-Chat", **_COMMON, num_hidden_layers=16),
    "LLaDA2": smaller(
        "LLaDA2.0-mini", **_COMMON, num_hidden_layers=8, num_experts=64, moe_intermediate_size=128
    ),
    "LLaDA": smaller(
        "LLaDA-8B-Instruct",
        d_model=256,
        mlp_hidden_size=512,
        n_layers=16,
        n_heads=8,
        n_kv_heads=8,
        vocab_size=512,
        embedding_size=512,
        max_sequence_length=159,
        eos_token_id=ENDLESS,
        mask_token_id=3,
        block_size=32,
    ),
    "DiffusionGemma": smaller(
        "DiffusionGemma-26B-A4B",
        **_COMMON,
        canvas_length=32,
        num_hidden_layers=12,
        layer_types=[*["sliding_attention"] * 5, "full_attention"] * 2,
        num_global_key_value_heads=4,
        global_head_dim=128,
        sliding_window=64,
        num_experts=96,
        top_k_experts=2,
        moe_intermediate_size=128,
    ),
}


def shallow(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with two layers, one of each kind, and few experts: what one forward takes stands out."""
    fewer: dict[str, Any] = {
        "num_hidden_layers": 2,
        "n_layers": 2,
        "num_experts": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "text_config": config.get("text_config"),
    }
    found = {name: fewer.get(name, value) for name, value in config.items()}
    return found | ({"text_config": shallow(found["text_config"])} if found.get("text_config") else {})


def write_random(path: Path, config: Mapping[str, Any]) -> None:
    """Whatever the family's plan reads is there; weights are small, so that nothing overflows."""
    definition = definition_of(config["architectures"][0])
    plan = definition.parameter_plan(definition.read_config(config))
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(source.shape, generator=generator) * 0.05 for name, source in plan.sources.items()
    }
    write_config(path, dict(config), {"eos_token_id": ENDLESS})
    save_tensors(weights, path / "model.safetensors")
