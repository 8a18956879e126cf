"""Checkpoints in the published formats of float8, made of one that holds floats.

What is written is what `easel.worker.quantization` reads, from the writers' side: transformers'
fine-grained FP8 and LLM Compressor's "float-quantized".
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file as _load_file  # pyright: ignore[reportUnknownVariableType]
from safetensors.torch import save_file as _save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from easel.kernels.fp8 import (
    BLOCK,
    FLOAT8,
    LARGEST,
    Fp8Weight,
    dequantise,
    quantise_blocks,
    quantise_channels,
)
from easel.worker.model_info import read_json
from easel.worker.models.registry import definition_of

_WEIGHTS = "model.safetensors"


class Float8Format(Enum):
    """The format, and which numbers share a scale."""

    TRANSFORMERS_BLOCKS = "fp8, blocks"
    TRANSFORMERS_TENSORS = "fp8, tensors"
    COMPRESSED_BLOCKS = "compressed-tensors, blocks"
    COMPRESSED_CHANNELS = "compressed-tensors, channels"
    COMPRESSED_TENSORS = "compressed-tensors, tensors"

    @property
    def compressed(self) -> bool:
        return self.value.startswith("compressed")

    @property
    def share(self) -> str:
        return self.value.rpartition(" ")[2]


def write_float8(
    path: Path, kind: Float8Format, *, published: Path, meant: Path, left_out: Sequence[str] = ()
) -> None:
    """Write the checkpoint in `path`, which is one file, twice: in the format, and as the floats it means.

    Modules named in `left_out` are not quantised.
    """
    config = read_json(path / "config.json", "it describes the model")
    matrices = _matrices(config)
    stored: dict[str, Tensor] = {}
    floats: dict[str, Tensor] = {}
    for name, tensor in _load_file(path / _WEIGHTS).items():
        if name not in matrices or name.removesuffix(".weight") in left_out:
            stored[name] = floats[name] = tensor
            continue
        if kind.compressed and tensor.ndim > 2:
            floats[name] = _write_apart(stored, name, tensor, kind)
            continue
        data, scale = quantised(tensor, kind)
        stored |= {name: data, name + ("_scale" if kind.compressed else "_scale_inv"): scale}
        floats[name] = _dequantised(data, scale.float(), kind)
    for target, tensors in ((published, stored), (meant, floats)):
        shutil.copytree(path, target, dirs_exist_ok=True)
        _save_file(tensors, target / _WEIGHTS)
    told = config | {"quantization_config": quantisation_config(kind, left_out)}
    (published / "config.json").write_text(json.dumps(told), encoding="utf-8")


def quantisation_config(kind: Float8Format, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """What a `config.json` says of the format."""
    if not kind.compressed:
        return {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "weight_block_size": [BLOCK, BLOCK] if kind.share == "blocks" else None,
            "modules_to_not_convert": ["lm_head", *left_out],
        }
    weights = {"type": "float", "num_bits": 8, "symmetric": True, "dynamic": False, "group_size": None}
    blocks = {"block_structure": [BLOCK, BLOCK]} if kind.share == "blocks" else {}
    group = {
        "targets": ["Linear"],
        "weights": weights | {"strategy": kind.share.removesuffix("s")} | blocks,
        "input_activations": {"type": "float", "num_bits": 8, "dynamic": True, "strategy": "token"},
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head", *left_out],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
    }


def quantised(weight: Tensor, kind: Float8Format) -> tuple[Tensor, Tensor]:
    """Numbers and scales of a matrix, shaped and typed as the format has them."""
    if kind.share == "blocks":
        found = quantise_blocks(weight)
        return found.data, found.scale.bfloat16() if kind.compressed else found.scale
    if kind.share == "channels":
        found = quantise_channels(weight)
        return found.data, found.scale[..., None].bfloat16()
    scale = weight.abs().amax((-2, -1), keepdim=True) / LARGEST
    data = (weight / scale).to(FLOAT8)
    flat = scale.float().reshape(()) if weight.ndim == 2 else scale.float()
    return data, flat.reshape(1) if kind.compressed and not flat.ndim else flat


def _write_apart(stored: dict[str, Tensor], name: str, stacked: Tensor, kind: Float8Format) -> Tensor:
    """Store each projection of each expert as a module of its own; returns what all of them mean."""
    stem, _, both = name.rpartition(".")
    names = ("gate_proj", "up_proj") if both == "gate_up_proj" else (both,)
    meant: list[Tensor] = []
    for expert, weight in enumerate(stacked):
        for part, matrix in zip(names, weight.chunk(len(names)), strict=True):
            data, scale = quantised(matrix, kind)
            module = f"{stem}.{expert}.{part}"
            stored |= {f"{module}.weight": data, f"{module}.weight_scale": scale}
            meant.append(_dequantised(data, scale.float(), kind))
    return torch.cat(meant).view(stacked.shape)


def _dequantised(data: Tensor, scale: Tensor, kind: Float8Format) -> Tensor:
    if kind.share == "blocks":
        return dequantise(Fp8Weight(data, scale), torch.float32)
    return data.float() * scale


def _matrices(config: Mapping[str, Any]) -> frozenset[str]:
    """Names in the checkpoint of everything that the formats quantise."""
    definition = definition_of(config["architectures"][0])
    plan = definition.parameter_plan(definition.read_config(config))
    return frozenset(name for name, source in plan.sources.items() if source.parameter in plan.matrices)
