"""How published checkpoints store matrices of eight bits.

Two formats are read, both float8_e4m3fn numbers with scales beside them: transformers' "fp8"
(DeepSeek-V3's, blocks of 128 x 128) and compressed-tensors' "float-quantized" (LLM Compressor's).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from easel.kernels.fp8 import BLOCK
from easel.worker.errors import UnsupportedQuantisation

Fields = Mapping[str, Any]


class Share(Enum):
    """Which numbers of a matrix have a scale in common."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class StoredFloat8:
    """What a checkpoint's configuration says of its matrices."""

    share: Share
    suffix: str  # of the scales' name, after the matrix's
    left_out: tuple[str, ...] = ()  # modules that are not quantised; after "re:", a regular expression
    by_ending: bool = False  # whether a module is also left out by how it begins or ends
    modules: bool = False  # only linear modules are: experts that a model stacks are modules one by one

    def covers(self, tensor: str) -> bool:
        """Whether a matrix of that name is stored in float8."""
        module = tensor.removesuffix(".weight")
        return not any(self._matches(module, pattern) for pattern in self.left_out)

    def _matches(self, module: str, pattern: str) -> bool:
        if pattern.startswith("re:"):
            return re.match(pattern[3:], module) is not None
        close = module.startswith(f"{pattern}.") or module.endswith(pattern)
        return module == pattern or (self.by_ending and close)


def read_quantisation(config: Fields) -> StoredFloat8 | None:
    """How the matrices of a `config.json` are stored; None: as they are multiplied.

    Raises UnsupportedQuantisation.
    """
    found = _part(config, "quantization_config") or _part(_part(config, "text_config"), "quantization_config")
    if not found:
        return None
    method = found.get("quant_method")
    if method == "fp8":
        return _transformers_fp8(found)
    if method == "compressed-tensors":
        return _compressed_tensors(found)
    raise UnsupportedQuantisation("quant_method", method)


def _transformers_fp8(found: Fields) -> StoredFloat8:
    _allow(
        found,
        {
            "activation_scheme": ("dynamic",),
            "fmt": ("e4m3",),
            "scale_fmt": ("float",),
            "expert_dtype": ("fp8",),
            "weight_block_size": ([BLOCK, BLOCK],),
            "modules_to_convert": ([],),
        },
    )
    left_out = found.get("modules_to_not_convert") or found.get("ignored_layers") or ()
    share = Share.TENSOR if found.get("weight_block_size") is None else Share.BLOCK
    return StoredFloat8(share, "_scale_inv", tuple(left_out), by_ending=True)


def _compressed_tensors(found: Fields) -> StoredFloat8:
    groups = _part(found, "config_groups")
    if len(groups) != 1:
        raise UnsupportedQuantisation("config_groups", sorted(groups))
    group = _part(groups, next(iter(groups)))
    weights = _part(group, "weights")
    _allow(found, {"format": ("float-quantized",), "kv_cache_scheme": (), "transform_config": ({},)})
    _allow(_part(found, "sparsity_config"), {"format": ("dense",)})
    _allow(group, {"targets": (["Linear"],), "output_activations": (), "format": ("float-quantized",)})
    _allow(
        weights,
        {
            "type": ("float",),
            "num_bits": (8,),
            "symmetric": (True,),
            "dynamic": (False,),
            "strategy": [share.value for share in Share],
            "block_structure": ([BLOCK, BLOCK],),
        },
    )
    _allow(
        _part(group, "input_activations"),
        {"type": ("float",), "num_bits": (8,), "dynamic": (True,)},
        "input_activations.",
    )
    share = Share(weights.get("strategy") or "tensor")
    return StoredFloat8(share, "_scale", tuple(found.get("ignore") or ()), modules=True)


def _allow(found: Fields, allowed: Mapping[str, Iterable[Any]], where: str = "") -> None:
    """Raises UnsupportedQuantisation for a field whose value is neither absent, nor null, nor allowed."""
    for field, values in allowed.items():
        value = found.get(field)
        if value is not None and value not in values:
            raise UnsupportedQuantisation(where + field, value)


def _part(fields: Fields, name: str) -> Fields:
    """A nested object; an empty one where there is none."""
    return cast(Fields, fields.get(name) or {})
