"""Pre-norm decoder with grouped-query attention: the backbone of every masked family.

Options cover the families' differences: norms and biases of queries and keys, rotation of a
part of each head, experts in place of the MLP.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.attention import canvas_attention
from easel.kernels.linear import Weight, linear
from easel.kernels.norm import add_norms, rms_norm
from easel.kernels.norm_rope import HeadRules, qknorm_rope_kvwrite
from easel.kernels.rope import inverse_frequencies, rotary_angles
from easel.kernels.row_stats import has_triton
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache, LayerPlace
from easel.worker.models.config import DecoderConfig
from easel.worker.models.mlp import DenseMLP, ExpertMLP, build_mlp, fed
from easel.worker.parameters import weight_of


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One layer; h hidden size, q = heads * head_dim, kv = kv_heads * head_dim."""

    place: LayerPlace
    input_norm: Tensor  # [h]
    qkv: Weight  # [q + 2 kv, h]
    qkv_bias: Tensor | None  # [q + 2 kv]
    qk_norm: Tensor | None  # [heads + kv_heads, head_dim]; the query heads' weight, then the key heads'
    out: Weight  # [h, q]
    mlp_norm: Tensor  # [h]
    mlp: DenseMLP | ExpertMLP


@dataclass(frozen=True, slots=True)
class Decoder:
    """The whole backbone, without state: the prefix cache comes in with each forward."""

    config: DecoderConfig
    embedding: Tensor  # [vocabulary, h]
    layers: tuple[DecoderLayer, ...]
    final_norm: Tensor  # [h]
    head: Tensor  # [vocabulary, h]; the embedding itself when tied
    inverse_frequencies: Tensor  # [rotary_dim / 2]  float32

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None = None) -> Tensor:
        """Hidden states [n, h] of all tokens, final norm applied; stores what the batch says.

        These models carry nothing from step to step: `conditioning` must be None.
        """
        if conditioning is not None:
            raise ValueError(f"a decoder takes no conditioning, got one of {tuple(conditioning.shape)}")
        x = F.embedding(batch.tokens, self.embedding)
        angles = rotary_angles(batch.positions, self.inverse_frequencies, x.dtype)
        first, *following = [*(layer.input_norm for layer in self.layers), self.final_norm]
        normed = rms_norm(x, first, self.config.rms_norm_eps)
        for layer, after in zip(self.layers, following, strict=True):
            attended = self._attention(layer, normed, angles, batch, cache)
            x, normed = fed(partial(self._feed, layer, after), x, attended)
        return normed

    def _attention(
        self,
        layer: DecoderLayer,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        batch: ForwardBatch,
        cache: KVCache,
    ) -> Tensor:
        config, place = self.config, layer.place
        rules = HeadRules(config.heads, config.kv_heads, config.rms_norm_eps)
        stores = cache.read(place)
        q, k, v = qknorm_rope_kvwrite(
            linear(x, layer.qkv, layer.qkv_bias).view(x.shape[0], -1, config.head_dim),
            *(layer.qk_norm, angles, rules, batch.places[place.group], stores),
            (batch.written, batch.written_to[place.group]),
        )
        found = canvas_attention(q, k, v, *stores, batch.layouts[place.group], config.head_dim**-0.5)
        return linear(found.flatten(1), layer.out)

    def _feed(self, layer: DecoderLayer, after: Tensor, x: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """`after` [h] is the weight of the norm that follows the layer."""
        eps = self.config.rms_norm_eps
        x, normed = _add_norm(x, attended, layer.mlp_norm, eps)
        return _add_norm(x, layer.mlp.forward(normed), after, eps)


def _add_norm(x: Tensor, added: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum and its norm, both [n, h]; without Triton the shorter way to the same bits."""
    if not has_triton(x):
        x = x + added
        return x, rms_norm(x, weight, eps)
    x, normed = add_norms(x, added, weight[None], eps)
    return x, normed[0]


def build_decoder(config: DecoderConfig, parameters: Mapping[str, Tensor]) -> Decoder:
    """Assemble the parameters of a decoder's plan."""
    embedding = parameters["embedding"]
    frequencies = inverse_frequencies(config.rotary_dim, config.rope_theta)
    return Decoder(
        config=config,
        embedding=embedding,
        layers=tuple(_layer(config, parameters, index) for index in range(config.layers)),
        final_norm=parameters["final_norm"],
        head=embedding if config.tied_embeddings else parameters["head"],
        inverse_frequencies=frequencies.to(embedding.device),
    )


def _layer(config: DecoderConfig, parameters: Mapping[str, Tensor], index: int) -> DecoderLayer:
    prefix = f"layers.{index}."
    return DecoderLayer(
        place=config.places[index],
        input_norm=parameters[f"{prefix}input_norm"],
        qkv=weight_of(parameters, f"{prefix}qkv", tiled=config.fixed_tiles),
        qkv_bias=parameters[f"{prefix}qkv_bias"] if config.qkv_bias else None,
        qk_norm=_qk_norm(config, parameters, prefix) if config.qk_norm else None,
        out=weight_of(parameters, f"{prefix}out", tiled=config.fixed_tiles),
        mlp_norm=parameters[f"{prefix}mlp_norm"],
        mlp=build_mlp(
            parameters,
            prefix,
            config.experts if config.has_experts(index) else None,
            fixed=config.fixed_tiles,
        ),
    )


def _qk_norm(config: DecoderConfig, parameters: Mapping[str, Tensor], prefix: str) -> Tensor:
    """One weight a head, so that queries and keys are normalised together."""
    query, key = (parameters[f"{prefix}{name}_norm"] for name in ("query", "key"))
    return torch.cat((query.expand(config.heads, -1), key.expand(config.kv_heads, -1)))
