"""DiffusionGemma's dimensions, and reading them from a Hugging Face `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from easel.worker.errors import CheckpointError
from easel.worker.kv_cache import KVGroup, LayerPlace
from easel.worker.models.config import refuse_unless, required

FULL, SLIDING = "full_attention", "sliding_attention"
SOFTCAP = 30.0  # transformers leaves it out of a config.json when it is this
_ROPE_TYPES = {FULL: "proportional", SLIDING: "default"}
_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False, None),
    "tie_word_embeddings": (True, None),
    "use_bidirectional_attention": ("vision", None),  # of image tokens, which are not served
    "attention_k_eq_v": (True, None),
}


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What layers of one kind have in common."""

    kv_heads: int
    head_dim: int
    rotary_dim: int  # dims of a head that are turned; frequencies are spaced over all of head_dim
    rope_theta: float


@dataclass(frozen=True, slots=True)
class GemmaConfig:
    """What the forward of DiffusionGemma depends on."""

    vocab_size: int
    hidden_size: int
    is_full: tuple[bool, ...]  # of each layer: sees all tokens, not a window
    heads: int
    full: AttentionShape
    sliding: AttentionShape
    window: int  # tokens a query of a sliding layer sees, itself included
    intermediate_size: int  # of the dense MLP, and of the self-conditioning
    experts: int
    experts_chosen: int  # of each token
    expert_size: int  # intermediate size of one expert
    softcap: float  # of the output logits
    rms_norm_eps: float
    canvas_length: int
    max_positions: int
    fixed_tiles: bool = False  # products' tiles are of one shape, whatever the number of tokens

    @property
    def layers(self) -> int:
        return len(self.is_full)

    @property
    def kv_groups(self) -> tuple[KVGroup, ...]:
        whole, full, sliding = sum(self.is_full), self.full, self.sliding
        return (
            KVGroup(whole, full.kv_heads, full.head_dim),
            KVGroup(self.layers - whole, sliding.kv_heads, sliding.head_dim, self.window),
        )

    @property
    def places(self) -> tuple[LayerPlace, ...]:
        """Full layers are in group 0, sliding ones in group 1."""
        return tuple(
            LayerPlace(0 if full else 1, self.is_full[:index].count(full))
            for index, full in enumerate(self.is_full)
        )

    def with_fixed_tiles(self) -> "GemmaConfig":
        return replace(self, fixed_tiles=True)

    def attention(self, layer: int) -> AttentionShape:
        return self.full if self.is_full[layer] else self.sliding


def read_config(config: Mapping[str, Any]) -> GemmaConfig:
    """Dimensions out of a `config.json`, in the published form or as transformers 5.23 writes it.

    Raises CheckpointError for a field that is missing or not supported.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    refuse_unless(text, _ALLOWED)
    kinds = _layer_kinds(text)
    window = required(text, "sliding_window")
    shapes = {kind: _attention_shape(text, kind, kinds) for kind in (FULL, SLIDING)}
    return GemmaConfig(
        vocab_size=required(text, "vocab_size"),
        hidden_size=required(text, "hidden_size"),
        is_full=tuple(kind == FULL for kind in kinds),
        heads=required(text, "num_attention_heads"),
        full=shapes[FULL],
        sliding=shapes[SLIDING],
        window=window,
        intermediate_size=required(text, "intermediate_size"),
        experts=required(text, "num_experts"),
        experts_chosen=required(text, "top_k_experts"),
        expert_size=required(text, "moe_intermediate_size"),
        softcap=float(text.get("final_logit_softcapping") or SOFTCAP),
        rms_norm_eps=required(text, "rms_norm_eps"),
        canvas_length=required(config, "canvas_length"),
        max_positions=required(text, "max_position_embeddings"),
    )


def _layer_kinds(text: Mapping[str, Any]) -> tuple[str, ...]:
    kinds, layers = tuple(required(text, "layer_types")), required(text, "num_hidden_layers")
    if len(kinds) != layers:
        raise CheckpointError(f"config.json: {len(kinds)} layer_types for num_hidden_layers={layers}.")
    if set(kinds) != {FULL, SLIDING} or kinds[-1] != FULL:
        raise CheckpointError(
            f"config.json: layer_types={list(kinds)} is not supported; "
            f"there must be {SLIDING!r} and {FULL!r} layers, the last one full."
        )
    return kinds


def _attention_shape(text: Mapping[str, Any], kind: str, kinds: tuple[str, ...]) -> AttentionShape:
    heads = required(text, "num_attention_heads")
    kv_heads, head_dim = _head_shape(text, kind, kinds)
    if heads % kv_heads:
        raise CheckpointError(f"config.json: {heads} heads do not divide into {kv_heads} key-value heads.")
    rope: Mapping[str, Any] = required(required(text, "rope_parameters"), kind)
    rope_type, expected = rope.get("rope_type", "default"), _ROPE_TYPES[kind]
    if rope_type != expected or rope.get("factor", 1.0) != 1.0:
        raise CheckpointError(
            f"config.json: rope_parameters of {kind!r} are {dict(rope)}; "
            f"rope_type must be {expected!r} and factor 1."
        )
    # A default RoPE would space a turned part's frequencies over that part alone.
    share = rope.get("partial_rotary_factor", 1.0)
    if kind == SLIDING and share != 1.0:
        raise CheckpointError(f"config.json: partial_rotary_factor={share} of {kind!r} must be 1.")
    theta = float(required(rope, "rope_theta"))
    return AttentionShape(kv_heads, head_dim, 2 * int(share * head_dim // 2), theta)


def _head_shape(text: Mapping[str, Any], kind: str, kinds: tuple[str, ...]) -> tuple[int, int]:
    """KV heads and head dim of layers of one kind; transformers 5.23 writes them layer by layer."""
    usual = required(text, "num_key_value_heads"), required(text, "head_dim")
    overrides: Mapping[str, Mapping[str, int]] | None = text.get("per_layer_config")
    if overrides is None:
        if kind == SLIDING:
            return usual
        return text.get("num_global_key_value_heads") or usual[0], required(text, "global_head_dim")
    found: set[tuple[int, int]] = set()
    for index, of_layer in enumerate(kinds):
        if of_layer == kind:
            own = overrides.get(str(index), {})
            found.add((own.get("num_key_value_heads", usual[0]), own.get("head_dim", usual[1])))
    if len(found) != 1:
        raise CheckpointError(
            f"config.json: per_layer_config gives {kind!r} layers the shapes {sorted(found)}."
        )
    return found.pop()
