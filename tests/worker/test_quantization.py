"""What a configuration says of quantised weights: which are read, and which are refused by name."""

import pickle
from typing import Any

import pytest
import torch
from transformers import FineGrainedFP8Config
from transformers.integrations.finegrained_fp8 import FP8Linear, _dequantize_fp8_weight

from easel.bench.oracles.float8 import Float8Format, quantisation_config, quantised
from easel.kernels.fp8 import Fp8Weight, dequantise
from easel.worker.errors import UnsupportedQuantisation
from easel.worker.quantization import Share, StoredFloat8, read_quantisation

BLOCKS = quantisation_config(Float8Format.TRANSFORMERS_BLOCKS)
CHANNELS = quantisation_config(Float8Format.COMPRESSED_CHANNELS)


def stored(fields: dict[str, Any]) -> StoredFloat8:
    found = read_quantisation({"quantization_config": fields})
    assert found is not None
    return found


def with_weights(**changed: Any) -> dict[str, Any]:
    return with_group(weights=CHANNELS["config_groups"]["group_0"]["weights"] | changed)


def with_group(**changed: Any) -> dict[str, Any]:
    return CHANNELS | {"config_groups": {"group_0": CHANNELS["config_groups"]["group_0"] | changed}}


def with_activations(**changed: Any) -> dict[str, Any]:
    return with_group(input_activations=CHANNELS["config_groups"]["group_0"]["input_activations"] | changed)


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"text_config": {"hidden_size": 8}}])
def test_a_model_may_not_be_quantised(config: dict[str, Any]) -> None:
    assert read_quantisation(config) is None


@pytest.mark.parametrize(
    ("kind", "share", "suffix"),
    [
        (Float8Format.TRANSFORMERS_BLOCKS, Share.BLOCK, "_scale_inv"),
        (Float8Format.TRANSFORMERS_TENSORS, Share.TENSOR, "_scale_inv"),
        (Float8Format.COMPRESSED_BLOCKS, Share.BLOCK, "_scale"),
        (Float8Format.COMPRESSED_CHANNELS, Share.CHANNEL, "_scale"),
        (Float8Format.COMPRESSED_TENSORS, Share.TENSOR, "_scale"),
    ],
)
def test_published_formats_are_read(kind: Float8Format, share: Share, suffix: str) -> None:
    found = stored(quantisation_config(kind))
    assert (found.share, found.suffix) == (share, suffix)
    assert not found.covers("lm_head.weight")
    assert found.covers("model.layers.0.mlp.down_proj.weight")


def test_the_text_models_part_of_a_configuration_is_looked_into() -> None:
    found = read_quantisation({"text_config": {"quantization_config": BLOCKS}})
    assert found is not None
    assert found.share is Share.BLOCK


def test_activations_may_stay_as_they_are() -> None:
    assert stored(with_group(input_activations=None)) == stored(CHANNELS)


@pytest.mark.parametrize("field", ["modules_to_not_convert", "ignored_layers"])
def test_transformers_leaves_out_by_name_and_by_how_a_name_begins_or_ends(field: str) -> None:
    fields = {name: value for name, value in BLOCKS.items() if name != "modules_to_not_convert"}
    found = stored(fields | {field: ["mlp.gate", "model.layers.1", "model.layers.2.mlp.up_proj"]})
    left_out = (
        "model.layers.0.mlp.gate.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.2.mlp.up_proj.weight",
    )
    assert not any(found.covers(name) for name in left_out)
    others = ("model.layers.0.mlp.gate_proj.weight", "model.layers.11.mlp.up_proj.weight")
    assert all(found.covers(name) for name in others)


def test_compressed_tensors_leaves_out_by_whole_names_and_regular_expressions() -> None:
    found = stored(CHANNELS | {"ignore": ["lm_head", "re:.*mlp.gate$", "model.layers.1.mlp.up_proj"]})
    left_out = ("model.layers.3.mlp.gate.weight", "lm_head.weight", "model.layers.1.mlp.up_proj.weight")
    assert not any(found.covers(name) for name in left_out)
    others = ("model.layers.3.mlp.gate_proj.weight", "model.layers.11.mlp.up_proj.weight", "a.lm_head.weight")
    assert all(found.covers(name) for name in others)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quant_method='gptq'"),
        ({"quant_method": "awq"}, "quant_method='awq'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quant_method='bitsandbytes'"),
        ({"load_in_4bit": True}, "quant_method=None"),
        (BLOCKS | {"activation_scheme": "static"}, "activation_scheme='static'"),
        (BLOCKS | {"weight_block_size": [64, 64]}, r"weight_block_size=\[64, 64\]"),
        (BLOCKS | {"fmt": "e5m2"}, "fmt='e5m2'"),
        (BLOCKS | {"scale_fmt": "ue8m0"}, "scale_fmt='ue8m0'"),
        (BLOCKS | {"expert_dtype": "fp4"}, "expert_dtype='fp4'"),
        (BLOCKS | {"modules_to_convert": ["embed_tokens"]}, "modules_to_convert="),
        (CHANNELS | {"format": "pack-quantized"}, "format='pack-quantized'"),
        (CHANNELS | {"format": "nvfp4-pack-quantized"}, "format='nvfp4-pack-quantized'"),
        (CHANNELS | {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme="),
        (CHANNELS | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "format='sparse-24-bitmask'"),
        (CHANNELS | {"config_groups": {}}, r"config_groups=\[\]"),
        (CHANNELS | {"config_groups": {"a": {}, "b": {}}}, r"config_groups=\['a', 'b'\]"),
        (with_group(targets=["re:.*q_proj"]), "targets="),
        (with_weights(type="int"), "type='int'"),
        (with_weights(num_bits=4), "num_bits=4"),
        (with_weights(strategy="group"), "strategy='group'"),
        (with_weights(strategy="block", block_structure=[64, 128]), r"block_structure=\[64, 128\]"),
        (with_activations(dynamic=False), "input_activations.dynamic=False"),
        (with_activations(num_bits=4), "input_activations.num_bits=4"),
    ],
)
def test_any_other_way_is_refused_by_name(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnsupportedQuantisation, match=f"has {problem}.*Take the model in bfloat16") as error:
        read_quantisation({"quantization_config": fields})
    again = pickle.loads(pickle.dumps(error.value))  # noqa: S301 errors cross processes
    assert str(again) == str(error.value)


def test_names_shapes_and_meaning_are_transformers_own() -> None:
    kind, blocks = Float8Format.TRANSFORMERS_BLOCKS, (128, 128)
    config = FineGrainedFP8Config(**quantisation_config(kind))
    assert (config.weight_block_size, config.modules_to_not_convert) == (list(blocks), ["lm_head"])
    theirs = {name: part.shape for name, part in FP8Linear(300, 130, block_size=blocks).named_parameters()}
    matrix = torch.randn(130, 300, generator=torch.Generator().manual_seed(0))
    data, scale = quantised(matrix, kind)
    assert theirs == {"weight": data.shape, f"weight{stored(BLOCKS).suffix}": scale.shape}
    meant = _dequantize_fp8_weight(data, scale, list(blocks), torch.float32)
    assert torch.equal(meant, dequantise(Fp8Weight(data, scale), torch.float32))
