"""What a checkpoint's JSON files say, read without torch so that a gateway can use it too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from easel.scheduler.errors import InvalidParameter
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.request import CommitRule, DiffusionParams
from easel.worker.errors import CheckpointError, MissingFile, UnsupportedArchitecture
from easel.worker.families import FAMILIES, Family

DEFAULT_OUTPUT_TOKENS = 256
UNALIGNED_PAGE_SIZE = 64  # tokens, where pages need not hold whole blocks
_LONGEST_FIELDS = ("max_position_embeddings", "max_sequence_length")
_BLOCK_FIELDS = ("block_size", "block_length", "canvas_length")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The part of a checkpoint's configuration that everything but the forward needs."""

    name: str
    path: Path
    architecture: str
    family: Family
    vocab_size: int
    block_length: int
    mask_token_id: int  # fills undecided positions; of models without a mask, the padding
    eos_token_ids: frozenset[int]
    max_model_tokens: int  # prompt + output of one request
    max_output_tokens: int  # default when a request names none
    temperature: float  # default when a request names none; 0 is greedy
    top_k: int
    top_p: float
    diffusion: DiffusionParams  # defaults when a request names none

    @property
    def default_page_size(self) -> int:
        """Tokens of a page unless the operator says otherwise."""
        aligned = self.family.layout is SequenceLayout.BLOCK_CAUSAL
        return self.block_length if aligned else min(UNALIGNED_PAGE_SIZE, self.block_length)

    @property
    def without_partial_steps(self) -> "ModelInfo":
        """The same model where the operator has not provided for partial steps."""
        options = self.family.options - {"rebuild_every"}
        return replace(self, family=replace(self.family, options=options))


def read_model_info(path: Path, name: str | None = None) -> ModelInfo:
    """Read `config.json` and `generation_config.json` of a Hugging Face directory.

    Raises MissingFile, UnsupportedArchitecture, or CheckpointError for a field that is missing.
    """
    config = read_json(path / "config.json", "it describes the model")
    generation_file = path / "generation_config.json"
    generation = read_json(generation_file, "it holds the defaults") if generation_file.exists() else {}
    return model_info(config, generation, path, name)


def model_info(
    config: Mapping[str, Any], generation: Mapping[str, Any], path: Path, name: str | None = None
) -> ModelInfo:
    """What the two files' contents say. `path` is where they are from; errors name it."""
    architecture = next(iter(config.get("architectures") or ["none"]))
    if architecture not in FAMILIES:
        raise UnsupportedArchitecture(architecture, tuple(FAMILIES))
    family = FAMILIES[architecture]
    text = {**config, **(config.get("text_config") or {})}
    merged = {**generation, **text}
    block_length = int(_first(merged, _BLOCK_FIELDS) or family.block_length)
    longest = int(_required(text, _LONGEST_FIELDS, path))
    mask = merged.get("mask_token_id", family.mask_token_id)
    return ModelInfo(
        name=name or path.resolve().name,
        path=path,
        architecture=architecture,
        family=family,
        vocab_size=int(_required(text, ("vocab_size",), path)),
        block_length=block_length,
        mask_token_id=int(merged.get("pad_token_id") or 0) if mask is None else int(mask),
        eos_token_ids=_eos(config, generation, family, path),
        max_model_tokens=_longest_request(longest, block_length, family.layout),
        max_output_tokens=int(generation.get("max_new_tokens") or min(DEFAULT_OUTPUT_TOKENS, longest // 2)),
        temperature=_temperature(generation, family),
        top_k=int(generation.get("top_k") or 0),
        top_p=float(generation.get("top_p") or 1.0),
        diffusion=_diffusion_defaults(generation, family, block_length, path / "generation_config.json"),
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


def _first(config: Mapping[str, Any], fields: tuple[str, ...]) -> Any:
    return next((config[field] for field in fields if config.get(field) is not None), None)


def _required(config: Mapping[str, Any], fields: tuple[str, ...], path: Path) -> Any:
    found = _first(config, fields)
    if found is None:
        raise CheckpointError(f"{path}: no {fields[0]!r} in config.json.")
    return found


def _eos(
    config: Mapping[str, Any], generation: Mapping[str, Any], family: Family, path: Path
) -> frozenset[int]:
    """Generation settings know better than the model's: DiffusionGemma's config lists fewer ids."""
    value = generation.get("eos_token_id")
    if value is None:
        value = config.get("eos_token_id")
    if value is None and not family.eos_token_ids:
        raise CheckpointError(f"{path}: no 'eos_token_id' in config.json or generation_config.json.")
    known: int | list[int] = list(family.eos_token_ids) if value is None else value
    return frozenset([known] if isinstance(known, int) else known)


def _longest_request(longest: int, block_length: int, layout: SequenceLayout) -> int:
    """A canvas is whole, and the last one must end within the model's positions."""
    aligned = layout is SequenceLayout.BLOCK_CAUSAL
    return longest // block_length * block_length if aligned else longest - block_length + 1


def _temperature(generation: Mapping[str, Any], family: Family) -> float:
    """Hugging Face samples only when `do_sample` says so, but a renoising model always draws."""
    if family.renoises:
        return 1.0
    return float(generation.get("temperature") or 1.0) if generation.get("do_sample") else 0.0


def _diffusion_defaults(
    generation: Mapping[str, Any], family: Family, block_length: int, path: Path
) -> DiffusionParams:
    try:
        if family.renoises:
            return _renoising_defaults(generation, family.diffusion)
        default = family.diffusion
        edit = generation.get("edit_threshold", default.edit_threshold)
        return replace(
            default,
            steps=int(generation.get("steps", block_length)),
            commit_rule=CommitRule(generation.get("commit_rule", default.commit_rule)),
            threshold=float(generation.get("confidence_threshold", default.threshold)),
            entropy_bound=float(generation.get("entropy_bound", default.entropy_bound)),
            edit_threshold=None if edit is None else float(edit),
            rebuild_every=int(generation.get("rebuild_every", default.rebuild_every)),
        )
    except (TypeError, ValueError, InvalidParameter) as error:
        raise CheckpointError(f"{path}: {error}") from None


def _renoising_defaults(generation: Mapping[str, Any], default: DiffusionParams) -> DiffusionParams:
    """DiffusionGemma's names for the same things."""
    sampler = generation.get("sampler_config") or {}
    confidence = generation.get("confidence_threshold", default.stop_entropy)
    return replace(
        default,
        steps=int(generation.get("max_denoising_steps") or default.steps),
        entropy_bound=float(sampler.get("entropy_bound", default.entropy_bound)),
        stop_entropy=None if confidence is None else float(confidence),
        stability=int(generation.get("stability_threshold", default.stability)),
        temperature_start=float(generation.get("t_max") or default.temperature_start),
        temperature_end=float(generation.get("t_min") or default.temperature_end),
    )
