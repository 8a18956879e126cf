"""Decoders' dimensions as the families publish them, and what is refused."""

from typing import Any

import pytest

from easel.worker.errors import CheckpointError, UnsupportedArchitecture
from easel.worker.families import FAMILIES
from easel.worker.kv_cache import KVGroup, LayerPlace
from easel.worker.models.config import DecoderConfig, Experts, Router
from easel.worker.models.registry import MODELS, definition_of
from easel.worker.presets import read_preset

DENSE, MOE, LLADA2, LLADA, DREAM = (
    dict(read_preset(name).config)
    for name in (
        "SDAR-1.7B-Chat",
        "SDAR-30B-A3B-Chat",
        "LLaDA2.0-mini",
        "LLaDA-8B-Instruct",
        "Dream-7B-Instruct",
    )
)


def test_a_dense_model_is_read() -> None:
    assert _read(DENSE) == DecoderConfig(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=6144,
        layers=28,
        heads=16,
        kv_heads=8,
        head_dim=128,
        rotary_dim=128,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        max_positions=32768,
        tied_embeddings=False,
        qk_norm=True,
        qkv_bias=False,
    )


def test_experts_of_both_kinds_are_read() -> None:
    assert _read(MOE).experts == Experts(
        count=128, chosen=8, intermediate_size=768, shared_size=0, router=Router.SOFTMAX
    )
    assert _read(LLADA2).experts == Experts(
        count=256,
        chosen=8,
        intermediate_size=512,
        shared_size=512,
        router=Router.GROUPED_SIGMOID,
        groups=8,
        groups_chosen=4,
        scale=2.5,
    )


def test_biases_norms_and_turned_dims_differ_by_family() -> None:
    found = [_read(config) for config in (DENSE, MOE, LLADA2, LLADA, DREAM)]
    assert [config.qk_norm for config in found] == [True, True, True, False, False]
    assert [config.qkv_bias for config in found] == [False, False, False, False, True]
    assert [config.rotary_dim for config in found] == [128, 128, 64, 128, 128]


def test_all_layers_share_one_group_of_keys_and_values() -> None:
    config = _read(LLADA2)
    assert config.kv_groups == (KVGroup(layers=20, kv_heads=4, head_dim=128, window=None),)
    assert config.places == tuple(LayerPlace(0, layer) for layer in range(20))


def test_leading_layers_may_be_dense() -> None:
    assert [_read(LLADA2).has_experts(layer) for layer in (0, 1, 19)] == [False, True, True]
    assert _read(MOE).has_experts(0)
    assert not _read(DENSE).has_experts(5)


@pytest.mark.parametrize("field", ["num_experts", "num_local_experts"])
def test_the_number_of_experts_has_either_name(field: str) -> None:
    config = {key: value for key, value in MOE.items() if key != "num_experts"}
    experts = _read(config | {field: 60}).experts
    assert experts is not None
    assert experts.count == 60


def test_the_head_dimension_follows_from_the_hidden_size_unless_it_is_given() -> None:
    config = {key: value for key, value in DENSE.items() if key != "head_dim"}
    assert _read(config).head_dim == 128
    assert _read(config | {"head_dim": 64}).head_dim == 64


@pytest.mark.parametrize(
    "place",
    [
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": None},
    ],
    ids=["before-transformers-5", "said-to-be-the-default", "transformers-5"],
)
@pytest.mark.parametrize("family", [DENSE, MOE, LLADA2, DREAM], ids=lambda config: config["model_type"])
def test_the_angle_base_is_found_where_either_transformers_writes_it(
    family: dict[str, Any], place: dict[str, Any]
) -> None:
    assert _read(family | place).rope_theta == 5e5


@pytest.mark.parametrize(
    "share",
    [
        {"partial_rotary_factor": 0.25},
        {"rope_parameters": {"rope_theta": 6e5, "partial_rotary_factor": 0.25}},
        {"rotary_dim": 32},
        {"partial_rotary_factor": 0.25, "rotary_dim": 128},
    ],
    ids=["at-the-top", "beside-the-angle-base", "as-dims", "the-share-before-the-dims"],
)
def test_the_turned_share_of_a_head_is_found_wherever_it_is(share: dict[str, Any]) -> None:
    config = {k: v for k, v in LLADA2.items() if k not in ("partial_rotary_factor", "rotary_dim")}
    assert _read(config | share).rotary_dim == 32


def test_llada_takes_what_it_leaves_out_from_other_fields() -> None:
    left_out: dict[str, Any] = {"mlp_hidden_size": None, "embedding_size": None, "n_kv_heads": None}
    config = _read(LLADA | left_out | {"mlp_ratio": 4, "vocab_size": 126349})
    assert (config.intermediate_size, config.vocab_size, config.kv_heads) == (16384, 126349, 32)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        (DENSE, {"attention_bias": True}),
        (DENSE, {"use_sliding_window": True}),
        (DENSE, {"hidden_act": "gelu"}),
        (DENSE, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
        (MOE, {"attention_bias": True}),
        (MOE, {"decoder_sparse_step": 2}),
        (MOE, {"mlp_only_layers": [0]}),
        (LLADA2, {"use_bias": True}),
        (LLADA2, {"norm_head": True}),
        (LLADA2, {"norm_topk_prob": False}),
        (LLADA2, {"score_function": "softmax"}),
        (LLADA2, {"moe_router_enable_expert_bias": False}),
        (LLADA2, {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        (LLADA, {"block_type": "sequential"}),
        (LLADA, {"activation_type": "swiglu"}),
        (LLADA, {"layer_norm_type": "default"}),
        (LLADA, {"rope": False}),
        (LLADA, {"alibi": True}),
        (LLADA, {"include_bias": True}),
        (LLADA, {"block_group_size": 2}),
        (LLADA, {"attention_layer_norm": True}),
        (LLADA, {"scale_logits": True}),
        (LLADA, {"multi_query_attention": True}),
        (DREAM, {"use_sliding_window": True}),
    ],
    ids=lambda part: part.get("model_type") or next(iter(part)),
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(
    family: dict[str, Any], change: dict[str, Any]
) -> None:
    field = "rope_type" if "rope_scaling" in change else next(iter(change))
    with pytest.raises(CheckpointError, match=rf"config\.json: {field}=.* is not supported; it must be"):
        _read(family | change)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        (DENSE, ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "rope_theta"]),
        (DENSE, ["num_attention_heads", "rms_norm_eps", "max_position_embeddings"]),
        (MOE, ["num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob"]),
        (LLADA2, ["n_group", "topk_group", "routed_scaling_factor", "first_k_dense_replace"]),
        (LLADA, ["d_model", "n_heads", "n_layers", "rope_theta", "weight_tying", "max_sequence_length"]),
        (DREAM, ["hidden_size", "rms_norm_eps"]),
    ],
    ids=["sdar", "sdar-too", "sdar-moe", "llada2", "llada", "dream"],
)
def test_a_field_that_is_missing_is_named_with_the_architecture(
    family: dict[str, Any], fields: list[str]
) -> None:
    for field in fields:
        config = {key: value for key, value in family.items() if key != field}
        architecture = family["architectures"][0]
        with pytest.raises(CheckpointError, match=rf"has no field '{field}', which {architecture} needs"):
            _read(config)


def test_heads_that_cannot_share_key_heads_are_refused() -> None:
    with pytest.raises(CheckpointError, match="16 attention heads cannot share 5 key heads evenly"):
        _read(DENSE | {"num_key_value_heads": 5})


@pytest.mark.parametrize("change", [{"n_group": 7}, {"topk_group": 1, "num_experts_per_tok": 33}])
def test_experts_that_cannot_be_chosen_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="experts cannot be chosen from"):
        _read(LLADA2 | change)


def test_every_family_has_a_model() -> None:
    assert MODELS.keys() == FAMILIES.keys()


def test_an_architecture_nobody_wrote_is_refused() -> None:
    with pytest.raises(UnsupportedArchitecture, match="'LlamaForCausalLM' is not supported; supported: SDAR"):
        definition_of("LlamaForCausalLM")


def _read(config: dict[str, Any]) -> DecoderConfig:
    found = definition_of(config["architectures"][0]).read_config(config)
    assert isinstance(found, DecoderConfig)
    return found
