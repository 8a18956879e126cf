"""Tiny random checkpoints in the layout their families publish, and the Hugging Face model in each.

The weights are drawn in a Hugging Face model of the family's mathematics and written under the published
names, so that an engine that reads them can be compared with that model.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file as _save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

MASK_ID, PAD_ID = 0, 2
HIDDEN_SIZE, INTERMEDIATE_SIZE, HEAD_DIM = 32, 48, 8
EXPERT_SIZE = 24  # intermediate size of one expert


@dataclass(frozen=True, slots=True)
class Sizes:
    """Dimensions of a tiny checkpoint; a family that fixes one of them ignores it."""

    block_length: int = 8
    vocabulary: int = 105
    eos_ids: tuple[int, ...] = (1, 20, 40, 50, 60, 80, 100)  # several, so that random tokens hit one
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    tied: bool = False
    positions: int = 1024
    shards: int = 1
    seed: int = 1
    sharpness: float = 3.0  # multiplies the logits, so that some positions are sure and others not


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk and the Hugging Face model whose weights it holds."""

    path: Path
    model: nn.Module
    block_length: int
    eos_ids: frozenset[int]
    mask_id: int = MASK_ID

    def converted(self, dtype: torch.dtype) -> "Checkpoint":
        """The same model computing in another dtype; nothing is written."""
        return replace(self, model=copy.deepcopy(self.model).to(dtype))


@dataclass(frozen=True, slots=True)
class Published:
    """What is written besides the tensors; fields that hold for every size."""

    config: Mapping[str, Any]
    generation: Mapping[str, Any]


def dimensions(sizes: Sizes) -> dict[str, Any]:
    """What every backbone of transformers is told of its size."""
    return {
        "vocab_size": sizes.vocabulary,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": INTERMEDIATE_SIZE,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "max_position_embeddings": sizes.positions,
        "pad_token_id": PAD_ID,
    }


def rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


def randomised(model: nn.Module, sizes: Sizes) -> nn.Module:
    """The model in float32 with weights drawn wider than the default, so that near-ties are rare."""
    generator = torch.Generator().manual_seed(sizes.seed)
    model.float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(std=0.2, generator=generator)
            if name == "model.norm.weight":
                parameter.mul_(sizes.sharpness)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.uniform_(-0.1, 0.1, generator=generator)
    return model


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The parts of names that `names` knows are replaced, in its order."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        published = name
        for old, new in names.items():
            published = published.replace(old, new)
        found[published] = tensor
    return found


def split_experts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers 5 stacks a layer's experts in two tensors; each is published in three of its own."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition("experts.")
        if kind not in ("gate_up_proj", "down_proj"):
            found[name] = tensor
            continue
        for expert, weight in enumerate(tensor):
            parts = zip(("gate_proj", "up_proj"), weight.chunk(2), strict=True)
            if kind == "down_proj":
                parts = [("down_proj", weight)]
            found |= {f"{place}experts.{expert}.{part}.weight": each for part, each in parts}
    return found


def write_checkpoint(
    path: Path,
    model: nn.Module,
    published: Published,
    sizes: Sizes,
    layout: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> Checkpoint:
    """Write both configurations and the tensors, which `layout` renames from the model's own names."""
    path.mkdir(parents=True, exist_ok=True)
    for name, fields in (("config", published.config), ("generation_config", published.generation)):
        (path / f"{name}.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.clone() for name, tensor in layout(model.state_dict()).items()}
    if published.config.get("tie_word_embeddings"):
        del tensors["lm_head.weight"]
    _save(path, tensors, sizes.shards)
    return Checkpoint(path, model, sizes.block_length, frozenset(sizes.eos_ids))


def _save(path: Path, tensors: Mapping[str, Tensor], shards: int) -> None:
    """One file, or `shards` files and the index that says which tensor lies in which."""
    if shards == 1:
        _save_file(dict(tensors), path / "model.safetensors")
        return
    files = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
    for file in sorted(set(files.values())):
        _save_file({name: tensor for name, tensor in tensors.items() if files[name] == file}, path / file)
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": files,
    }
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def floats(tensor: Tensor) -> list[float]:
    """A vector as a list of a known element type, which torch's types leave open."""
    return cast(list[float], tensor.tolist())
