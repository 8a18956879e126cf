"""DiffusionGemma's layers: attention of two kinds, then a dense MLP and a mixture of experts side by side."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from easel.kernels.attention import canvas_attention
from easel.kernels.linear import TiledWeight, Weight, linear
from easel.kernels.moe import Activation, ExpertScales, expert_mlp, gated, softmax_router
from easel.kernels.norm import add_norms, rms_norm
from easel.kernels.norm_rope import HeadRules, qknorm_rope_kvwrite
from easel.kernels.rope import inverse_frequencies
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache, LayerPlace
from easel.worker.models.gemma_config import AttentionShape, GemmaConfig
from easel.worker.models.mlp import fed

ENCODER, DECODER = 0, 1  # roles of a token: committed for good, or on a canvas


@dataclass(frozen=True, slots=True)
class GemmaLayer:
    """One layer; q = heads * head_dim, kv = kv_heads * head_dim, both of the layer's kind."""

    place: LayerPlace
    input_norm: Tensor  # [h]
    qkv: Weight  # [q + 2 kv, h]; [q + kv, h] in full layers, whose values are their keys
    qk_norm: Tensor  # [heads + kv_heads, head_dim]; the query heads' weight, then the key heads'
    out: Weight  # [h, q]
    attention_norm: Tensor  # [h]  after attention
    fed_norms: Tensor  # [3, h]  of what the dense MLP, the experts and the router read
    gate_up: Weight  # [2 intermediate, h]
    down: Weight  # [h, intermediate]
    dense_out_norm: Tensor  # [h]
    router: Tensor  # [experts, h]
    expert_scale: Tensor  # [experts]
    expert_gate_up: Tensor  # [experts, 2 expert size, h]
    expert_down: Tensor  # [experts, h, expert size]
    expert_out_norm: Tensor  # [h]
    out_norm: Tensor  # [h]  after the sum of both
    scalars: Tensor  # [2]  factor of the output, by role
    expert_scales: ExpertScales | None  # of float8 experts


@dataclass(frozen=True, slots=True)
class SelfConditioning:
    """How a canvas's soft embeddings of the last step enter the next one."""

    norm: Tensor  # [h]
    gate_up: Weight  # [2 intermediate, h]
    down: Weight  # [h, intermediate]


@dataclass(frozen=True, slots=True)
class LayerInput:
    """What every layer of one forward reads besides the hidden states of its n tokens."""

    config: GemmaConfig
    batch: ForwardBatch
    cache: KVCache
    angles: tuple[tuple[Tensor, Tensor], ...]  # per KV group: cos, sin [n, 1, head_dim]
    roles: Tensor  # [n]  int64  ENCODER or DECODER


def gemma_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """RMS norm over x's last dimension, rounded to x's dtype once, after the weight."""
    return rms_norm(x, weight, eps, round_once=True)


def frequencies(shape: AttentionShape) -> Tensor:
    """Radians a position of each pair of a head's dims, [head_dim / 2] float32.

    They are spaced over the whole head; those beyond `rotary_dim` are 0, which turns nothing.
    """
    found = inverse_frequencies(shape.head_dim, shape.rope_theta)
    found[shape.rotary_dim // 2 :] = 0.0
    return found


def condition(x: Tensor, soft: Tensor | None, weights: SelfConditioning, config: GemmaConfig) -> Tensor:
    """Canvas embeddings x [n, h] with the last step's soft ones [n, h]; None: it is the first step."""
    eps = config.rms_norm_eps
    if soft is not None:
        normed = gemma_norm(soft, weights.norm, eps)
        x = x + _mlp(normed, weights.gate_up, weights.down, fixed=config.fixed_tiles)
    return gemma_norm(x, None, eps)


def gemma_layer(
    x: Tensor, normed: Tensor, layer: GemmaLayer, after: Tensor, given: LayerInput
) -> tuple[Tensor, Tensor]:
    """Hidden states [n, h] after one layer, and their norm by the weight `after` [h].

    normed [n, h]: x by the layer's input norm. Stores the keys and values that the batch says.
    """
    attended = _attention(normed, layer, given)
    return fed(partial(_feed, layer, after, given.config), x, attended, given.roles)


def _feed(
    layer: GemmaLayer, after: Tensor, config: GemmaConfig, x: Tensor, attended: Tensor, roles: Tensor
) -> tuple[Tensor, Tensor]:
    """The MLP and the experts side by side; they and the router read a norm of the residual each."""
    eps, weight = config.rms_norm_eps, layer.attention_norm
    x, normed = add_norms(x, attended, layer.fed_norms, eps, added_weight=weight, round_once=True)
    dense = _mlp(normed[0], layer.gate_up, layer.down, fixed=config.fixed_tiles)
    dense = gemma_norm(dense, layer.dense_out_norm, eps)
    sparse = gemma_norm(_experts(normed[1], normed[2], layer, config), layer.expert_out_norm, eps)
    x = x + gemma_norm(dense + sparse, layer.out_norm, eps)
    x *= layer.scalars[roles][:, None]
    return x, gemma_norm(x, after, eps)


def _attention(h: Tensor, layer: GemmaLayer, given: LayerInput) -> Tensor:
    at, batch, config = layer.place.group, given.batch, given.config
    group, stores = config.kv_groups[at], given.cache.read(layer.place)
    rules = HeadRules(config.heads, group.kv_heads, config.rms_norm_eps, round_once=True, scale_values=True)
    # Full layers project no values: theirs are the keys, neither weighed nor turned.
    q, k, v = qknorm_rope_kvwrite(
        linear(h, layer.qkv).view(len(h), -1, group.head_dim),
        *(layer.qk_norm, given.angles[at], rules, batch.places[at], stores),
        (batch.written, batch.written_to[at]),
    )
    found = canvas_attention(q, k, v, *stores, batch.layouts[at], scale=1.0)
    return linear(found.flatten(1), layer.out)


def _mlp(x: Tensor, gate_up: Weight, down: Weight, *, fixed: bool) -> Tensor:
    return linear(gated(linear(x, gate_up), Activation.GELU_TANH, fixed=fixed), down)


def _experts(x: Tensor, scaled: Tensor, layer: GemmaLayer, config: GemmaConfig) -> Tensor:
    """What the experts make of x [n, h]; the router reads `scaled` [n, h]."""
    fixed = config.fixed_tiles
    router = TiledWeight(layer.router) if fixed else layer.router
    logits = linear(scaled * config.hidden_size**-0.5, router)
    index, weight = softmax_router(logits, config.experts_chosen, renormalise=True)
    weight = weight * layer.expert_scale[index]
    matrices = layer.expert_gate_up, layer.expert_down
    return expert_mlp(x, index, weight, *matrices, Activation.GELU_TANH, layer.expert_scales, fixed=fixed)


def roles_of(batch: ForwardBatch) -> Tensor:
    """[n] int64: every token of a canvas is predicted, so those are the decoder's."""
    roles = torch.full_like(batch.positions, ENCODER)
    return roles.index_fill_(0, batch.canvases.flatten(), DECODER)
