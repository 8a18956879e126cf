"""Dimensions of a pre-norm GQA decoder, read from a Hugging Face `config.json`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easel.worker.errors import CheckpointError
from easel.worker.model_info import read_json


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What the forward of a Qwen3-shaped decoder depends on."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    max_positions: int
    tied_embeddings: bool


def read_decoder_config(path: Path) -> DecoderConfig:
    """Raises MissingFile, or CheckpointError for a field that is missing or not supported."""
    config = read_json(path / "config.json", "it describes the model")
    try:
        return _decoder_config(config)
    except KeyError as error:
        raise CheckpointError(f"{path / 'config.json'} has no field {error.args[0]!r}.") from None


def _decoder_config(config: dict[str, Any]) -> DecoderConfig:
    _refuse_unsupported(config)
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return DecoderConfig(
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(config["intermediate_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config["num_key_value_heads"]),
        head_dim=int(config.get("head_dim") or hidden // heads),
        rope_theta=_rope_theta(config),
        rms_norm_eps=float(config["rms_norm_eps"]),
        max_positions=int(config["max_position_embeddings"]),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _rope_theta(config: dict[str, Any]) -> float:
    """transformers 5 writes the angle base under `rope_parameters`, earlier versions at the top."""
    parameters: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = parameters.get("rope_type", "default")
    if kind != "default":
        raise CheckpointError(f"rope_type {kind!r} is not supported; only the default one is.")
    return float(parameters["rope_theta"] if "rope_theta" in parameters else config["rope_theta"])


def _refuse_unsupported(config: dict[str, Any]) -> None:
    refused = {
        "attention_bias": (False, None),
        "use_sliding_window": (False, None),
        "hidden_act": ("silu", None),
    }
    for field, allowed in refused.items():
        if config.get(field) not in allowed:
            raise CheckpointError(f"{field}={config[field]!r} is not supported; it must be {allowed[0]!r}.")
