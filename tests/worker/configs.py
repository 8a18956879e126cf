"""A checkpoint's JSON files, written by hand."""

import json
from pathlib import Path
from typing import Any

# As large as SDAR-1.7B.
CONFIG: dict[str, Any] = {
    "architectures": ["SDARForCausalLM"],
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
    "block_size": 4,
    "mask_token_id": 151669,
    "eos_token_id": 151643,
}


def write_config(path: Path, config: dict[str, Any], generation: dict[str, Any] | None = None) -> None:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
