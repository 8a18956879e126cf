"""Small checkpoints of every layout for tests of float8: random, and wide enough that layers matter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from easel.worker.config import EngineConfig
from easel.worker.sketch import sketch_directory
from easel.worker.storage import Storage
from easel.worker.weights import load_parameters
from tests.worker.random_checkpoint import ENDLESS, smaller, write_random
from tests.worker.values import load_tensors, save_tensors

CPU = torch.device("cpu")
KEPT = Storage(float8=True)
CONFIG = EngineConfig(slots=2, pages=64, dtype="float32")
# Widths that are no multiples of 128: queries end in the middle of a block, and so do gates.
_COMMON: dict[str, Any] = {
    "hidden_size": 160,
    "vocab_size": 96,
    "eos_token_id": ENDLESS,
    "mask_token_id": 3,
    "block_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 48,
    "intermediate_size": 208,
    "max_position_embeddings": 128,
    "num_hidden_layers": 2,
}
_EXPERTS = {"num_experts": 4, "moe_intermediate_size": 80, "num_experts_per_tok": 2}
FAMILIES: Mapping[str, dict[str, Any]] = {
    "SDAR": smaller("SDAR-8B-Chat", **_COMMON),
    "SDAR-MoE": smaller("SDAR-30B-A3B-Chat", **_COMMON, **_EXPERTS),
    "whole blocks": smaller(
        "SDAR-30B-A3B-Chat", **_COMMON | {"head_dim": 64}, **_EXPERTS | {"moe_intermediate_size": 128}
    ),
    "LLaDA2": smaller("LLaDA2.0-mini", **_COMMON, **_EXPERTS, n_group=2, topk_group=1),
    "DiffusionGemma": smaller(
        "DiffusionGemma-26B-A4B",
        **_COMMON,
        canvas_length=16,
        layer_types=["sliding_attention", "full_attention"],
        num_global_key_value_heads=2,
        global_head_dim=64,
        sliding_window=24,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=80,
    ),
}


def write_family(path: Path, family: str) -> Path:
    """A checkpoint that is not quantised."""
    write_random(path, FAMILIES[family])
    weights = load_tensors(path / "model.safetensors")
    wide = {name: 1 + tensor if "norm" in name else 3 * tensor for name, tensor in weights.items()}
    save_tensors(wide, path / "model.safetensors")  # what layers add shows in what is generated
    return path


def load(path: Path, storage: Storage | None = None, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return load_parameters(path, sketch_directory(path).loaded(storage or Storage()), dtype, CPU)
