"""DiffusionGemma, text only: a causal encoder and a canvas decoder that share all but their layers' scalars.

One ragged forward holds rows of both. Names and shapes are those of the published checkpoint;
the mathematics is transformers' `diffusion_gemma` (checked there, and in this model's tests).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.rope import rotary_angles
from easel.kernels.soft_embedding import embedding_root
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache
from easel.worker.models.gemma_config import GemmaConfig
from easel.worker.models.gemma_layers import (
    GemmaLayer,
    LayerInput,
    SelfConditioning,
    condition,
    frequencies,
    gemma_layer,
    gemma_norm,
    roles_of,
)
from easel.worker.models.mlp import FED_AT_ONCE
from easel.worker.parameters import (
    ParameterPlan,
    Source,
    expert_scales_of,
    matrices_among,
    weight_of,
)

_DECODER, _ENCODER = "model.decoder.", "model.encoder.language_model."
_NORMS = {
    "input_norm": "input_layernorm",
    "attention_norm": "post_attention_layernorm",
    "dense_norm": "pre_feedforward_layernorm",
    "dense_out_norm": "post_feedforward_layernorm_1",
    "expert_norm": "pre_feedforward_layernorm_2",
    "expert_out_norm": "post_feedforward_layernorm_2",
    "out_norm": "post_feedforward_layernorm",
}
# Of the encoder's text layers everything but the scalars is the decoder's.
_TIED_PARTS = ("self_attn.", "mlp.", "router.", "experts.", "input_", "post_", "pre_")


@dataclass(frozen=True, slots=True)
class DiffusionGemma:
    """The whole model, without state: the prefix cache comes in with each forward."""

    config: GemmaConfig
    embedding: Tensor  # [vocabulary, h]
    conditioning: SelfConditioning
    layers: tuple[GemmaLayer, ...]
    final_norm: Tensor  # [h]
    frequencies: tuple[Tensor, ...]  # per KV group [head_dim / 2]  float32

    @property
    def head(self) -> Tensor:
        """[vocabulary, h]; its logits are to be capped at `softcap`."""
        return self.embedding

    @property
    def softcap(self) -> float:
        return self.config.softcap

    def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None) -> Tensor:
        """Hidden states [n, h] of all tokens, final norm applied; stores what the batch says.

        Tokens of the batch's canvases go through the decoder, the others through the encoder.
        `conditioning` [c, block, h] holds the canvases' soft embeddings of their last step,
        zeros at a canvas's first one; None: all of them are at their first.
        """
        x = self._embedded(batch, conditioning)
        angles = tuple(rotary_angles(batch.positions, of_group, x.dtype) for of_group in self.frequencies)
        given = LayerInput(self.config, batch, cache, angles, roles_of(batch))
        first, *following = [*(layer.input_norm for layer in self.layers), self.final_norm]
        normed = gemma_norm(x, first, self.config.rms_norm_eps)
        for layer, after in zip(self.layers, following, strict=True):
            x, normed = gemma_layer(x, normed, layer, after, given)
        return normed

    def _embedded(self, batch: ForwardBatch, conditioning: Tensor | None) -> Tensor:
        x = F.embedding(batch.tokens, self.embedding).mul_(embedding_root(self.embedding))
        soft = None if conditioning is None else conditioning.flatten(0, 1)
        for start in range(0, batch.canvases.numel(), FED_AT_ONCE):
            some = slice(start, start + FED_AT_ONCE)
            at, part = batch.canvases.flatten()[some], None if soft is None else soft[some]
            part = condition(x.index_select(0, at), part, self.conditioning, self.config)
            x.index_copy_(0, at, part)
        return x


@dataclass(slots=True)
class _Draft:
    """A plan in the making."""

    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    sources: dict[str, Source] = field(default_factory=dict[str, Source])

    def whole(self, parameter: str, name: str, *shape: int) -> None:
        """A parameter that is one tensor of the checkpoint."""
        self.parameters[parameter] = shape
        self.sources[name] = Source(shape, parameter)

    def joined(self, parameter: str, names: Sequence[str], rows: Sequence[int], *rest: int) -> None:
        """A parameter that is several tensors, one below the other."""
        self.parameters[parameter] = (sum(rows), *rest)
        start = 0
        for name, count in zip(names, rows, strict=True):
            self.sources[name] = Source((count, *rest), parameter, (slice(start, start + count),))
            start += count


def parameter_plan(config: GemmaConfig) -> ParameterPlan:
    """Everything the text model loads; the vision tower and tied duplicates are left out."""
    draft, h, wide = _Draft(), config.hidden_size, config.intermediate_size
    draft.whole("embedding", f"{_DECODER}embed_tokens.weight", config.vocab_size, h)
    draft.whole("final_norm", f"{_DECODER}norm.weight", h)
    there = f"{_DECODER}self_conditioning."
    draft.whole("conditioning.norm", f"{there}pre_norm.weight", h)
    _gated(draft, "conditioning.", there, h, wide)
    for index in range(config.layers):
        _attention(draft, config, index)
        _feed_forward(draft, config, index)
    tied = [f"{_ENCODER}layers.{index}.{part}" for index in range(config.layers) for part in _TIED_PARTS]
    return ParameterPlan(
        draft.parameters,
        draft.sources,
        ignored=(
            "model.encoder.vision_tower.",
            "model.encoder.embed_vision.",
            "lm_head.weight",
            f"{_ENCODER}embed_tokens.",
            f"{_ENCODER}norm.",
            *tied,
        ),
        matrices=matrices_among(draft.parameters),
    )


def build_model(config: GemmaConfig, parameters: Mapping[str, Tensor]) -> DiffusionGemma:
    """Assemble loaded parameters, named and shaped as the plan says."""
    embedding = parameters["embedding"]
    return DiffusionGemma(
        config=config,
        embedding=embedding,
        conditioning=SelfConditioning(
            norm=parameters["conditioning.norm"],
            gate_up=weight_of(parameters, "conditioning.gate_up", tiled=config.fixed_tiles),
            down=weight_of(parameters, "conditioning.down", tiled=config.fixed_tiles),
        ),
        layers=tuple(_layer(config, parameters, index) for index in range(config.layers)),
        final_norm=parameters["final_norm"],
        frequencies=tuple(frequencies(shape).to(embedding.device) for shape in (config.full, config.sliding)),
    )


def _layer(config: GemmaConfig, parameters: Mapping[str, Tensor], index: int) -> GemmaLayer:
    prefix, shape = f"layers.{index}.", config.attention(index)

    def of(*names: str) -> list[Tensor]:
        return [parameters[prefix + name] for name in names]

    query, key = of("query_norm", "key_norm")
    made: dict[str, Any] = {
        "place": config.places[index],
        "qk_norm": torch.cat((query.expand(config.heads, -1), key.expand(shape.kv_heads, -1))),
        "fed_norms": torch.stack(of("dense_norm", "expert_norm", "router_scale")),
        "expert_scales": expert_scales_of(parameters, prefix),
    }
    for name in ("qkv", "out", "gate_up", "down"):
        made[name] = weight_of(parameters, prefix + name, tiled=config.fixed_tiles)
    others = [part.name for part in fields(GemmaLayer) if part.name not in made]
    return GemmaLayer(**dict(zip(others, of(*others), strict=True)), **made)


def _attention(draft: _Draft, config: GemmaConfig, index: int) -> None:
    here, there = f"layers.{index}.", f"{_DECODER}layers.{index}.self_attn."
    shape, h = config.attention(index), config.hidden_size
    d, kv = shape.head_dim, shape.kv_heads * shape.head_dim
    projections = ["q_proj", "k_proj"] if config.is_full[index] else ["q_proj", "k_proj", "v_proj"]
    rows = [config.heads * d, kv, kv][: len(projections)]
    draft.joined(f"{here}qkv", [f"{there}{name}.weight" for name in projections], rows, h)
    draft.whole(f"{here}query_norm", f"{there}q_norm.weight", d)
    draft.whole(f"{here}key_norm", f"{there}k_norm.weight", d)
    draft.whole(f"{here}out", f"{there}o_proj.weight", h, config.heads * d)


def _feed_forward(draft: _Draft, config: GemmaConfig, index: int) -> None:
    here, there = f"layers.{index}.", f"{_DECODER}layers.{index}."
    h, experts, size = config.hidden_size, config.experts, config.expert_size
    for parameter, name in _NORMS.items():
        draft.whole(f"{here}{parameter}", f"{there}{name}.weight", h)
    _gated(draft, here, f"{there}mlp.", h, config.intermediate_size)
    draft.whole(f"{here}router", f"{there}router.proj.weight", experts, h)
    draft.whole(f"{here}router_scale", f"{there}router.scale", h)
    draft.whole(f"{here}expert_scale", f"{there}router.per_expert_scale", experts)
    draft.whole(f"{here}expert_gate_up", f"{there}experts.gate_up_proj", experts, 2 * size, h)
    draft.whole(f"{here}expert_down", f"{there}experts.down_proj", experts, h, size)
    scalars = [f"{part}layers.{index}.layer_scalar" for part in (_ENCODER, _DECODER)]
    draft.joined(f"{here}scalars", scalars, (1, 1))


def _gated(draft: _Draft, here: str, there: str, h: int, wide: int) -> None:
    draft.joined(f"{here}gate_up", [f"{there}gate_proj.weight", f"{there}up_proj.weight"], (wide, wide), h)
    draft.whole(f"{here}down", f"{there}down_proj.weight", h, wide)
