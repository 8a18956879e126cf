"""DiffusionGemma's dimensions in either form of its `config.json`, and what is refused."""

from collections.abc import Mapping
from typing import Any

import pytest

from easel.worker.errors import CheckpointError
from easel.worker.kv_cache import KVGroup, LayerPlace
from easel.worker.models.diffusion_gemma import parameter_plan
from easel.worker.models.gemma_config import GemmaConfig, read_config

FULL, SLIDING = "full_attention", "sliding_attention"
TEXT: Mapping[str, Any] = {
    "attention_bias": False,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2816,
    "intermediate_size": 2112,
    "layer_types": ([SLIDING] * 5 + [FULL]) * 5,
    "max_position_embeddings": 262144,
    "moe_intermediate_size": 704,
    "num_attention_heads": 16,
    "num_experts": 128,
    "num_hidden_layers": 30,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        SLIDING: {"rope_type": "default", "rope_theta": 1e4},
    },
    "sliding_window": 1024,
    "tie_word_embeddings": True,
    "top_k_experts": 8,
    "use_bidirectional_attention": "vision",
    "vocab_size": 262144,
}
PUBLISHED = {"global_head_dim": 512, "num_global_key_value_heads": 2}
PER_LAYER = {
    "per_layer_config": {str(i): {"head_dim": 512, "num_key_value_heads": 2} for i in range(5, 30, 6)}
}


def rope_of(kind: str, **change: object) -> dict[str, dict[str, Any]]:
    """The published angles with something else for layers of one kind."""
    rope: dict[str, dict[str, Any]] = TEXT["rope_parameters"]
    return rope | {kind: rope[kind] | change}


@pytest.mark.parametrize("form", [PUBLISHED, PER_LAYER], ids=["published", "transformers-5.23"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
def test_the_full_layers_shape_is_found_in_either_form(form: Mapping[str, Any], nested: bool) -> None:
    text = {**TEXT, **form}
    config = read_config(
        {"canvas_length": 256, "text_config": text} if nested else text | {"canvas_length": 256}
    )
    assert config.kv_groups == (KVGroup(5, 2, 512), KVGroup(25, 8, 256, 1024))
    assert config.places[4:7] == (LayerPlace(1, 4), LayerPlace(0, 0), LayerPlace(1, 5))
    assert (config.full.rotary_dim, config.full.rope_theta) == (128, 1e6)
    assert (config.sliding.rotary_dim, config.sliding.rope_theta) == (256, 1e4)
    assert config.canvas_length == 256


def test_the_published_model_has_as_many_parameters_as_its_card_says() -> None:
    assert parameter_plan(_read({})).count == pytest.approx(25.25e9, rel=2e-3)


def test_a_softcap_that_is_left_out_is_the_usual_one() -> None:
    assert _read({"final_logit_softcapping": None}).softcap == 30.0
    assert _read({"final_logit_softcapping": 20.0}).softcap == 20.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_activation": "silu"}, r"hidden_activation='silu' is not supported"),
        ({"attention_bias": True}, r"attention_bias=True is not supported"),
        ({"use_bidirectional_attention": "all"}, r"use_bidirectional_attention='all' is not supported"),
        ({"num_experts": None}, r"no field 'num_experts'"),
        ({"global_head_dim": None}, r"no field 'global_head_dim'"),
        ({"rope_parameters": {SLIDING: {"rope_theta": 1e4}}}, r"no field 'full_attention'"),
        ({"layer_types": [FULL] * 30}, r"there must be 'sliding_attention' and 'full_attention' layers"),
        ({"layer_types": [FULL, SLIDING] * 15}, r"the last one full"),
        ({"num_hidden_layers": 29}, r"30 layer_types for num_hidden_layers=29"),
        ({"num_key_value_heads": 3}, r"16 heads do not divide into 3"),
        (
            {"per_layer_config": {"5": {"head_dim": 512, "num_key_value_heads": 2}}},
            r"'full_attention' layers the shapes \[\(2, 512\), \(8, 256\)\]",
        ),
        ({"rope_parameters": rope_of(FULL, rope_type="yarn")}, r"rope_type must be 'proportional'"),
        ({"rope_parameters": rope_of(FULL, factor=8.0)}, r"factor 1"),
        ({"rope_parameters": rope_of(SLIDING, partial_rotary_factor=0.5)}, r"partial_rotary_factor=0.5"),
    ],
)
def test_what_the_model_does_not_compute_is_refused_by_name(change: Mapping[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        _read(change)


def _read(change: Mapping[str, Any]) -> GemmaConfig:
    return read_config({"canvas_length": 256, "text_config": {**TEXT, **PUBLISHED, **change}})
