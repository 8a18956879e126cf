"""Pre-norm GQA decoder with QK-norm and SwiGLU: Qwen3's architecture, SDAR's backbone."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.attention import canvas_attention
from easel.kernels.norm import rms_norm
from easel.kernels.rope import RotaryTable, apply_rotary, rotary_table
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache
from easel.worker.models.config import DecoderConfig


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer; h hidden size, q = heads * head_dim, kv = kv_heads * head_dim."""

    input_norm: Tensor  # [h]
    qkv: Tensor  # [q + 2 kv, h]
    qk_norm: Tensor  # [heads + kv_heads, head_dim]; the query heads' weight, then the key heads'
    out: Tensor  # [h, q]
    mlp_norm: Tensor  # [h]
    gate_up: Tensor  # [2 intermediate, h]
    down: Tensor  # [h, intermediate]


@dataclass(frozen=True, slots=True)
class Decoder:
    """The whole backbone, without state: prefix pages come in with each forward."""

    config: DecoderConfig
    embedding: Tensor  # [vocabulary, h]
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor  # [h]
    head: Tensor  # [vocabulary, h]; the embedding itself when tied
    rotary: RotaryTable

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, cache: KVCache) -> Tensor:
        """Hidden states [n, h] of all tokens, final norm applied; writes the batch's pages."""
        x = F.embedding(batch.tokens, self.embedding)
        cos = self.rotary.cos[batch.positions][:, None]
        sin = self.rotary.sin[batch.positions][:, None]
        for index, layer in enumerate(self.layers):
            h = rms_norm(x, layer.input_norm, self.config.rms_norm_eps)
            x = x + self._attention(index, layer, h, (cos, sin), batch, cache)
            h = rms_norm(x, layer.mlp_norm, self.config.rms_norm_eps)
            x = x + _swiglu(h, layer)
        return rms_norm(x, self.final_norm, self.config.rms_norm_eps)

    def _attention(
        self,
        index: int,
        layer: LayerWeights,
        h: Tensor,
        angles: tuple[Tensor, Tensor],
        batch: ForwardBatch,
        cache: KVCache,
    ) -> Tensor:
        config = self.config
        heads = F.linear(h, layer.qkv).view(h.shape[0], -1, config.head_dim)
        queries, values = config.heads, config.heads + config.kv_heads  # where k and v start
        turned = apply_rotary(rms_norm(heads[:, :values], layer.qk_norm, config.rms_norm_eps), *angles)
        q, k, v = turned[:, :queries], turned[:, queries:], heads[:, values:]
        if batch.written.numel():
            cache.write(index, batch.written_to, k[batch.written], v[batch.written])
        scale = config.head_dim**-0.5
        found = canvas_attention(q, k, v, cache.keys[index], cache.values[index], batch.layout, scale)
        return F.linear(found.flatten(1), layer.out)


def _swiglu(h: Tensor, layer: LayerWeights) -> Tensor:
    gate, up = F.linear(h, layer.gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate).mul_(up), layer.down)


def expected_tensors(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint, as Qwen3 and SDAR publish them."""
    h, d, wide = config.hidden_size, config.head_dim, config.intermediate_size
    expected: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, h),
        "model.norm.weight": (h,),
    }
    if not config.tied_embeddings:
        expected["lm_head.weight"] = (config.vocab_size, h)
    for index in range(config.layers):
        layer = {
            "input_layernorm": (h,),
            "post_attention_layernorm": (h,),
            "self_attn.q_proj": (config.heads * d, h),
            "self_attn.k_proj": (config.kv_heads * d, h),
            "self_attn.v_proj": (config.kv_heads * d, h),
            "self_attn.o_proj": (h, config.heads * d),
            "self_attn.q_norm": (d,),
            "self_attn.k_norm": (d,),
            "mlp.gate_proj": (wide, h),
            "mlp.up_proj": (wide, h),
            "mlp.down_proj": (h, wide),
        }
        expected |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    return expected


def redundant_tensors(config: DecoderConfig) -> frozenset[str]:
    """Tensors that may be there and are not read: some tied checkpoints store the head as well."""
    return frozenset({"lm_head.weight"} if config.tied_embeddings else ())


def build_decoder(config: DecoderConfig, weights: Mapping[str, Tensor]) -> Decoder:
    """Assemble checked weights; projections that read the same input are fused into one product."""
    embedding = weights["model.embed_tokens.weight"]
    return Decoder(
        config=config,
        embedding=embedding,
        layers=tuple(_layer(config, weights, f"model.layers.{index}.") for index in range(config.layers)),
        final_norm=weights["model.norm.weight"],
        head=embedding if config.tied_embeddings else weights["lm_head.weight"],
        rotary=_rotary(config, embedding),
    )


def _rotary(config: DecoderConfig, like: Tensor) -> RotaryTable:
    table = rotary_table(config.max_positions, config.head_dim, config.rope_theta, like.dtype)
    return RotaryTable(table.cos.to(like.device), table.sin.to(like.device))


def _layer(config: DecoderConfig, weights: Mapping[str, Tensor], prefix: str) -> LayerWeights:
    def of(*names: str) -> Tensor:
        tensors = [weights[f"{prefix}{name}.weight"] for name in names]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    return LayerWeights(
        input_norm=of("input_layernorm"),
        qkv=of("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        qk_norm=torch.cat(
            (
                of("self_attn.q_norm").expand(config.heads, -1),
                of("self_attn.k_norm").expand(config.kv_heads, -1),
            )
        ),
        out=of("self_attn.o_proj"),
        mlp_norm=of("post_attention_layernorm"),
        gate_up=of("mlp.gate_proj", "mlp.up_proj"),
        down=of("mlp.down_proj"),
    )
