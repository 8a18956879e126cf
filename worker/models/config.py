"""Dimensions of a pre-norm GQA decoder, and reading them from a Hugging Face `config.json`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from easel.worker.errors import CheckpointError
from easel.worker.kv_cache import KVGroup, LayerPlace


class Router(Enum):
    """How a token's experts are chosen and weighted."""

    SOFTMAX = "softmax"  # Qwen3-MoE
    GROUPED_SIGMOID = "grouped sigmoid"  # LLaDA2, after DeepSeek-V3


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture of experts that takes the MLP's place in a layer."""

    count: int
    chosen: int  # of each token
    intermediate_size: int  # of one expert
    shared_size: int  # intermediate size of the experts that every token passes; 0: none
    router: Router
    groups: int = 1
    groups_chosen: int = 1
    scale: float = 1.0  # of the chosen experts' weights
    renormalise: bool = True  # whether the chosen experts' weights sum to `scale`

    def __post_init__(self) -> None:
        if self.count % self.groups or self.chosen > self.count // self.groups * self.groups_chosen:
            raise CheckpointError(
                f"config.json: {self.chosen} experts cannot be chosen from {self.groups_chosen} of "
                f"{self.groups} groups of {self.count} experts."
            )


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What the forward of a decoder depends on."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int  # of the dense MLP
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int  # leading dims of each head that are turned
    rope_theta: float
    rms_norm_eps: float
    max_positions: int
    tied_embeddings: bool
    qk_norm: bool
    qkv_bias: bool
    experts: Experts | None = None
    dense_layers: int = 0  # leading layers without experts, of a model that has experts
    fixed_tiles: bool = False  # products' tiles are of one shape, whatever the number of tokens

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise CheckpointError(
                f"config.json: {self.heads} attention heads cannot share {self.kv_heads} key heads evenly."
            )

    @property
    def kv_groups(self) -> tuple[KVGroup, ...]:
        return (KVGroup(self.layers, self.kv_heads, self.head_dim),)

    @property
    def places(self) -> tuple[LayerPlace, ...]:
        return tuple(LayerPlace(0, index) for index in range(self.layers))

    def with_fixed_tiles(self) -> "DecoderConfig":
        return replace(self, fixed_tiles=True)

    def has_experts(self, layer: int) -> bool:
        return self.experts is not None and layer >= self.dense_layers


def decoder_config(
    config: Mapping[str, Any],
    *,
    qk_norm: bool,
    qkv_bias: bool,
    rotary_share: float = 1.0,
    experts: Experts | None = None,
    dense_layers: int = 0,
) -> DecoderConfig:
    """The dimensions that most families write under the same names.

    `rotary_share` is the part of each head's dims that is turned. Raises CheckpointError.
    """
    refuse_unless(config, {"hidden_act": ("silu", None), "use_sliding_window": (False, None)})
    hidden, heads = int(required(config, "hidden_size")), int(required(config, "num_attention_heads"))
    head_dim = int(config.get("head_dim") or hidden // heads)
    return DecoderConfig(
        vocab_size=int(required(config, "vocab_size")),
        hidden_size=hidden,
        intermediate_size=int(required(config, "intermediate_size")),
        layers=int(required(config, "num_hidden_layers")),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        rotary_dim=int(head_dim * rotary_share),
        rope_theta=rope_theta(config),
        rms_norm_eps=float(required(config, "rms_norm_eps")),
        max_positions=int(required(config, "max_position_embeddings")),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qk_norm=qk_norm,
        qkv_bias=qkv_bias,
        experts=experts,
        dense_layers=dense_layers,
    )


def required(config: Mapping[str, Any], field: str) -> Any:
    """A field's value. Raises CheckpointError when it is absent or null."""
    if config.get(field) is None:
        raise CheckpointError(f"config.json has no field {field!r}, which {_kind(config)} needs.")
    return config[field]


def first_of(config: Mapping[str, Any], *fields: str) -> Any:
    """The value of the first field that has one. Raises CheckpointError when none has."""
    named = next((field for field in fields if config.get(field) is not None), fields[0])
    return required(config, named)


def refuse_unless(config: Mapping[str, Any], allowed: Mapping[str, Collection[Any]]) -> None:
    """Raises CheckpointError for a field whose value is not among the allowed ones; absent is None."""
    for field, values in allowed.items():
        found = config.get(field)
        if found not in values:
            wanted = " or ".join(repr(value) for value in values if value is not None)
            raise CheckpointError(f"config.json: {field}={found!r} is not supported; it must be {wanted}.")


def rope_parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What transformers 5 writes about rotary embedding; earlier versions write only changes of it."""
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def rope_theta(config: Mapping[str, Any]) -> float:
    """The angle base, with `rope_parameters` or at the top. Raises CheckpointError for changed angles."""
    parameters = rope_parameters(config)
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"config.json: rope_type={kind!r} is not supported; it must be 'default'.")
    return float(parameters["rope_theta"] if "rope_theta" in parameters else required(config, "rope_theta"))


def _kind(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures") or ["this model"]
    return str(architectures[0])
