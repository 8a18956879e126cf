"""What a checkpoint's JSON files say, read without torch so that a gateway can use it too."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from easel.scheduler.errors import InvalidParameter
from easel.scheduler.request import CommitRule, DiffusionParams
from easel.worker.errors import CheckpointError, MissingFile, UnsupportedArchitecture

SUPPORTED_ARCHITECTURES = ("SDARForCausalLM",)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The part of a checkpoint's configuration that everything but the forward needs."""

    name: str
    path: Path
    architecture: str
    vocab_size: int
    block_length: int
    mask_token_id: int
    eos_token_ids: frozenset[int]
    max_model_tokens: int  # prompt + output of one request
    max_output_tokens: int  # default when a request names none
    temperature: float  # default when a request names none; 0 is greedy
    top_k: int
    top_p: float
    diffusion: DiffusionParams  # defaults when a request names none


def read_model_info(path: Path, name: str | None = None) -> ModelInfo:
    """Read `config.json` and `generation_config.json` of a Hugging Face directory.

    Raises MissingFile, UnsupportedArchitecture, or CheckpointError for a field that is missing.
    """
    config = read_json(path / "config.json", "it describes the model")
    architecture = next(iter(config.get("architectures") or ["none"]))
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise UnsupportedArchitecture(architecture, SUPPORTED_ARCHITECTURES)
    generation_file = path / "generation_config.json"
    generation = read_json(generation_file, "it holds the defaults") if generation_file.exists() else {}
    block_length = int(_required(generation | config, "block_size", path))
    longest = int(_required(config, "max_position_embeddings", path))
    return ModelInfo(
        name=name or path.resolve().name,
        path=path,
        architecture=architecture,
        vocab_size=int(_required(config, "vocab_size", path)),
        block_length=block_length,
        mask_token_id=int(_required(generation | config, "mask_token_id", path)),
        eos_token_ids=_token_ids(_required(config | generation, "eos_token_id", path)),
        # A canvas is whole: the last one must not reach beyond the model's positions.
        max_model_tokens=longest // block_length * block_length,
        max_output_tokens=int(generation.get("max_new_tokens", min(256, longest // 2))),
        temperature=_temperature(generation),
        top_k=int(generation.get("top_k", 0)),
        top_p=float(generation.get("top_p", 1.0)),
        diffusion=_diffusion_defaults(generation, block_length, generation_file),
    )


def read_json(path: Path, purpose: str) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint. Raises MissingFile or CheckpointError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFile(path, purpose) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold a JSON object; it holds {type(found).__name__}.")
    return cast(dict[str, Any], found)


def _required(config: dict[str, Any], field: str, path: Path) -> Any:
    if config.get(field) is None:
        raise CheckpointError(f"{path}: no {field!r} in config.json or generation_config.json.")
    return config[field]


def _token_ids(value: int | list[int]) -> frozenset[int]:
    return frozenset([value] if isinstance(value, int) else value)


def _temperature(generation: dict[str, Any]) -> float:
    """Hugging Face samples only when `do_sample` says so, whatever the temperature."""
    return float(generation.get("temperature", 1.0)) if generation.get("do_sample") else 0.0


def _diffusion_defaults(generation: dict[str, Any], block_length: int, path: Path) -> DiffusionParams:
    try:
        return DiffusionParams(
            steps=int(generation.get("steps", block_length)),
            commit_rule=CommitRule(generation.get("commit_rule", CommitRule.CONFIDENCE_THRESHOLD)),
            threshold=float(generation.get("confidence_threshold", 0.9)),
            entropy_bound=float(generation.get("entropy_bound", 0.35)),
        )
    except (TypeError, ValueError, InvalidParameter) as error:
        raise CheckpointError(f"{path}: {error}") from None
