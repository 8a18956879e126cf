"""DiffusionGemma's layers: attention of two kinds, then a dense MLP and a mixture of experts side by side."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.attention import canvas_attention
from easel.kernels.linear import Weight, linear
from easel.kernels.moe import Activation, ExpertScales, expert_mlp, gated, softmax_router
from easel.kernels.rope import apply_rotary, inverse_frequencies
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache, LayerPlace
from easel.worker.models.gemma_config import AttentionShape, GemmaConfig

ENCODER, DECODER = 0, 1  # roles of a token: committed for good, or on a canvas


@dataclass(frozen=True, slots=True)
class GemmaLayer:
    """One layer; q = heads * head_dim, kv = kv_heads * head_dim, both of the layer's kind."""

    input_norm: Tensor  # [h]
    qkv: Weight  # [q + 2 kv, h]; [q + kv, h] in full layers, whose values are their keys
    query_norm: Tensor  # [head_dim]
    key_norm: Tensor  # [head_dim]
    out: Weight  # [h, q]
    attention_norm: Tensor  # [h]  after attention
    dense_norm: Tensor  # [h]
    gate_up: Weight  # [2 intermediate, h]
    down: Weight  # [h, intermediate]
    dense_out_norm: Tensor  # [h]
    expert_norm: Tensor  # [h]
    router: Tensor  # [experts, h]
    router_scale: Tensor  # [h]
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

    batch: ForwardBatch
    cache: KVCache
    angles: tuple[tuple[Tensor, Tensor], ...]  # per KV group: cos, sin [n, 1, head_dim]
    roles: Tensor  # [n]  int64  ENCODER or DECODER


def gemma_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """RMS norm over x's last dimension, rounded to x's dtype once, after the weight."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def frequencies(shape: AttentionShape) -> Tensor:
    """Radians a position of each pair of a head's dims, [head_dim / 2] float32.

    They are spaced over the whole head; those beyond `rotary_dim` are 0, which turns nothing.
    """
    found = inverse_frequencies(shape.head_dim, shape.rope_theta)
    found[shape.rotary_dim // 2 :] = 0.0
    return found


def condition(x: Tensor, soft: Tensor | None, weights: SelfConditioning, eps: float) -> Tensor:
    """Canvas embeddings x [n, h] with the last step's soft ones [n, h]; None: it is the first step."""
    if soft is not None:
        x = x + _mlp(gemma_norm(soft, weights.norm, eps), weights.gate_up, weights.down)
    return gemma_norm(x, None, eps)


def gemma_layer(
    x: Tensor, layer: GemmaLayer, place: LayerPlace, config: GemmaConfig, given: LayerInput
) -> Tensor:
    """Hidden states [n, h] after one layer; stores the keys and values that the batch says."""
    eps = config.rms_norm_eps
    attended = _attention(gemma_norm(x, layer.input_norm, eps), layer, place, config, given)
    x = x + gemma_norm(attended, layer.attention_norm, eps)
    dense = _mlp(gemma_norm(x, layer.dense_norm, eps), layer.gate_up, layer.down)
    dense = gemma_norm(dense, layer.dense_out_norm, eps)
    sparse = gemma_norm(_experts(x, layer, config), layer.expert_out_norm, eps)
    x = x + gemma_norm(dense + sparse, layer.out_norm, eps)
    return x * layer.scalars[given.roles][:, None]


def _attention(
    h: Tensor, layer: GemmaLayer, place: LayerPlace, config: GemmaConfig, given: LayerInput
) -> Tensor:
    group, eps, batch = config.kv_groups[place.group], config.rms_norm_eps, given.batch
    heads = linear(h, layer.qkv).view(len(h), -1, group.head_dim)
    at = config.heads  # where the keys begin
    raw_keys = heads[:, at : at + group.kv_heads]
    q = apply_rotary(gemma_norm(heads[:, :at], layer.query_norm, eps), *given.angles[place.group])
    k = apply_rotary(gemma_norm(raw_keys, layer.key_norm, eps), *given.angles[place.group])
    # The values come last; without a projection of their own they are the keys, neither normed nor turned.
    v = gemma_norm(heads[:, -group.kv_heads :], None, eps)
    if batch.written.numel():
        given.cache.write(place, batch.written_to[place.group], k[batch.written], v[batch.written])
    found = canvas_attention(q, k, v, *given.cache.read(place), batch.layouts[place.group], scale=1.0)
    return linear(found.flatten(1), layer.out)


def _mlp(x: Tensor, gate_up: Weight, down: Weight) -> Tensor:
    return linear(gated(linear(x, gate_up), Activation.GELU_TANH), down)


def _experts(x: Tensor, layer: GemmaLayer, config: GemmaConfig) -> Tensor:
    """The router reads the residual, the experts a norm of it."""
    eps = config.rms_norm_eps
    routed = gemma_norm(x, layer.router_scale, eps) * config.hidden_size**-0.5
    index, weight = softmax_router(F.linear(routed, layer.router), config.experts_chosen, renormalise=True)
    weight = weight * layer.expert_scale[index]
    inner = gemma_norm(x, layer.expert_norm, eps)
    matrices = layer.expert_gate_up, layer.expert_down
    return expert_mlp(inner, index, weight, *matrices, Activation.GELU_TANH, layer.expert_scales)


def roles_of(batch: ForwardBatch) -> Tensor:
    """[n] int64: every token of a canvas is predicted, so those are the decoder's."""
    roles = torch.full_like(batch.positions, ENCODER)
    return roles.index_fill_(0, batch.canvases.flatten(), DECODER)
