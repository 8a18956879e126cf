"""What is read of a checkpoint's JSON files, and what is said when something is wrong with them."""

from pathlib import Path
from typing import Any

import pytest

from easel.scheduler.request import CommitRule, DiffusionParams
from easel.worker.errors import CheckpointError, MissingFile, UnsupportedArchitecture
from easel.worker.families import FAMILIES
from easel.worker.model_info import ModelInfo, read_model_info
from tests.worker.configs import CONFIG, write_config


def test_a_config_alone_is_enough(tmp_path: Path) -> None:
    info = _info(tmp_path / "sdar", CONFIG)
    assert info == ModelInfo(
        name="sdar",
        path=tmp_path / "sdar",
        architecture="SDARForCausalLM",
        family=FAMILIES["SDARForCausalLM"],
        vocab_size=151936,
        block_length=4,
        mask_token_id=151669,
        eos_token_ids=frozenset({151643}),
        max_model_tokens=32768,
        max_output_tokens=256,
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        diffusion=DiffusionParams(steps=4),
    )


def test_the_generation_config_holds_the_defaults(tmp_path: Path) -> None:
    generation = {
        "eos_token_id": [151643, 151645],
        "max_new_tokens": 64,
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "steps": 3,
        "commit_rule": "entropy_bound",
        "confidence_threshold": 0.95,
        "entropy_bound": 0.5,
    }
    info = _info(tmp_path, CONFIG, generation)
    assert info.eos_token_ids == {151643, 151645}, "more complete than config.json's"
    assert (info.max_output_tokens, info.temperature, info.top_k, info.top_p) == (64, 0.7, 20, 0.8)
    assert info.diffusion == DiffusionParams(3, CommitRule.ENTROPY_BOUND, 0.95, 0.5)


def test_a_temperature_without_do_sample_is_greedy(tmp_path: Path) -> None:
    assert _info(tmp_path, CONFIG, {"temperature": 0.7}).temperature == 0.0


def test_what_a_checkpoint_leaves_open_is_the_familys(tmp_path: Path) -> None:
    bare = {key: value for key, value in CONFIG.items() if key not in ("block_size", "mask_token_id")}
    info = _info(tmp_path, bare)
    assert (info.block_length, info.mask_token_id) == (4, 151669)
    llada = _info(
        tmp_path, {"architectures": ["LLaDAModelLM"], "vocab_size": 126464, "max_sequence_length": 4096}
    )
    assert (llada.block_length, llada.mask_token_id) == (32, 126336)
    assert llada.eos_token_ids == {126081, 126348}
    assert llada.diffusion.rebuild_every == 8


def test_diffusion_gemmas_own_names_are_understood(tmp_path: Path) -> None:
    config = {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "canvas_length": 64,
        "eos_token_id": [1, 106],
        "text_config": {"vocab_size": 262144, "max_position_embeddings": 131072},
    }
    generation = {
        "eos_token_id": [1, 106, 50],
        "max_denoising_steps": 24,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.2},
        "t_max": 0.9,
        "t_min": 0.3,
        "stability_threshold": 0,
        "confidence_threshold": 0.01,
    }
    info = _info(tmp_path, config, generation)
    assert (info.block_length, info.eos_token_ids, info.temperature) == (64, {1, 106, 50}, 1.0)
    assert info.max_model_tokens == 131072 - 63, "the last canvas lies within the model's positions"
    assert info.diffusion == DiffusionParams(
        steps=24,
        entropy_bound=0.2,
        stop_entropy=0.01,
        stability=0,
        temperature_start=0.9,
        temperature_end=0.3,
    )


def test_a_name_that_is_given_is_taken(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG, None)
    assert read_model_info(tmp_path, "easel-demo").name == "easel-demo"


def test_the_last_canvas_lies_within_the_models_positions(tmp_path: Path) -> None:
    assert (
        _info(tmp_path, CONFIG | {"max_position_embeddings": 1023, "block_size": 32}).max_model_tokens == 992
    )


@pytest.mark.parametrize("field", ["vocab_size", "eos_token_id", "max_position_embeddings"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(CheckpointError, match=f"no '{field}' in config.json"):
        _info(tmp_path, {key: value for key, value in CONFIG.items() if key != field})


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"commit_rule": "oracle"}, "'oracle' is not a valid CommitRule"),
        ({"steps": 0}, "steps is 0; it must be between 1 and 4096"),
        ({"confidence_threshold": "high"}, "could not convert"),
    ],
)
def test_a_default_that_cannot_be_used_is_named_with_its_file(
    tmp_path: Path, generation: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: .*{message}"):
        _info(tmp_path, CONFIG, generation)


@pytest.mark.parametrize("architectures", [["LlamaForCausalLM"], [], None])
def test_another_architecture_is_refused_with_the_supported_ones(
    tmp_path: Path, architectures: list[str] | None
) -> None:
    with pytest.raises(UnsupportedArchitecture, match="supported: SDARForCausalLM"):
        _info(tmp_path, CONFIG | {"architectures": architectures})


def test_a_directory_without_a_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"config\.json is missing: it describes the model") as error:
        read_model_info(tmp_path)
    assert error.value.path == tmp_path / "config.json"


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), ("[]", "must hold a JSON object; it holds list")]
)
def test_a_config_that_is_no_json_object_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"config\.json {message}"):
        read_model_info(tmp_path)


def _info(path: Path, config: dict[str, Any], generation: dict[str, Any] | None = None) -> ModelInfo:
    write_config(path, config, generation)
    return read_model_info(path)
