# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""Norms and rotation of a token's heads and the store of its keys and values, in one Triton launch.

The definition is `reference_qknorm_rope` in kernels/norm_rope.py. A program takes some heads of one token.
Results are rounded where the torch path rounds: after a norm, after its weight, after the product with the
cosine, and after the sum.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.norm_rope import HeadRules

ELEMENTS = 2048  # of the heads that a program takes: 16 a thread


def fused_heads(
    projected: Tensor,
    weight: Tensor | None,
    angles: tuple[Tensor, Tensor],
    rules: HeadRules,
    slots: Tensor,
    stores: tuple[Tensor, Tensor],
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`qknorm_rope_kvwrite`; all tensors dense.

    q, k and, where values are scaled, v are parts of `out` [n, heads + kv_heads (+ kv_heads), d].
    """
    _require(projected, weight, angles, rules, slots, stores)
    tokens, given, dim = projected.shape
    made = rules.turned + (rules.kv_heads if rules.scale_values else 0)
    out = projected.new_empty(tokens, made, dim) if out is None else out
    padded = triton.next_power_of_2(dim)
    heads = rules.turned + rules.kv_heads
    block = max(1, min(ELEMENTS // padded, triton.next_power_of_2(heads)))
    if tokens:
        _heads[(tokens, triton.cdiv(heads, block))](
            *(projected, weight, *angles, slots, out, *stores, rules.eps),
            given=given,
            queries=rules.heads,
            keys=rules.kv_heads,
            made=made,
            dim=dim,
            turned=angles[0].shape[-1],
            once=rules.round_once,
            scale_values=rules.scale_values,
            padded=padded,
            block=block,
            enable_fp_fusion=True,  # also what is chosen by default; triton 3.9 warns where it is not said
        )
    values = out[:, rules.turned :] if rules.scale_values else projected[:, -rules.kv_heads :]
    return out[:, : rules.heads], out[:, rules.heads : rules.turned], values


def _require(
    projected: Tensor,
    weight: Tensor | None,
    angles: tuple[Tensor, Tensor],
    rules: HeadRules,
    slots: Tensor,
    stores: tuple[Tensor, Tensor],
) -> None:
    tokens, _, dim = projected.shape
    cos, sin = angles
    width = cos.shape[-1]
    if cos.shape != (tokens, 1, width) or cos.shape != sin.shape or width > dim or width % 2:
        raise ValueError(
            f"qknorm_rope_kvwrite: projected {tuple(projected.shape)} needs angles [tokens, 1, r], got "
            f"{tuple(cos.shape)} and {tuple(sin.shape)}"
        )
    named = {"weight": weight, "slots": slots, "keys": stores[0], "values": stores[1]}
    shapes = {name: tensor if tensor is None else tuple(tensor.shape) for name, tensor in named.items()}
    stored = (len(stores[0]), rules.kv_heads, dim)
    if shapes != {
        "weight": None if weight is None else (rules.turned, dim),
        "slots": (tokens,),
        "keys": stored,
        "values": stored,
    }:
        raise ValueError(f"qknorm_rope_kvwrite: projected {tuple(projected.shape)} and {rules}, but {shapes}")
    tensors = [projected, cos, sin, *stores, *(() if weight is None else (weight,))]
    dense = all(tensor.is_contiguous() for tensor in (*tensors, slots))
    if not dense or slots.dtype != torch.int64 or any(tensor.dtype != projected.dtype for tensor in tensors):
        found = [(tensor.dtype, tensor.stride()) for tensor in (*tensors, slots)]
        raise ValueError(
            f"qknorm_rope_kvwrite: on a GPU dense tensors of one dtype, and int64 slots, not {found}"
        )


@triton.jit
def _heads(
    projected, weight, cos, sin, slots, out, key_store, value_store, eps,
    given: tl.constexpr, queries: tl.constexpr, keys: tl.constexpr, made: tl.constexpr, dim: tl.constexpr,
    turned: tl.constexpr, once: tl.constexpr, scale_values: tl.constexpr,
    padded: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Some heads of one token, counted from its first query."""
    token = tl.program_id(0).to(tl.int64)
    head, at = tl.program_id(1) * block + tl.arange(0, block), tl.arange(0, padded)
    is_value = head >= queries + keys
    there = (head < queries + 2 * keys)[:, None] & (at < dim)[None, :]
    # Without a projection of their own the values are the last heads that are given, the keys.
    source = (token * given + tl.where(is_value, head - (queries + 2 * keys) + given, head)) * dim
    mate = tl.where(at < turned // 2, at + turned // 2, at - turned // 2)  # each dim turns with another
    pairs = there & (at < turned)[None, :] & (head < queries + keys)[:, None]
    raw = tl.load(projected + source[:, None] + at[None, :], mask=there, other=0.0)
    other = tl.load(projected + source[:, None] + mate[None, :], mask=pairs, other=0.0)
    if weight is not None or scale_values:
        wide = raw.to(tl.float32)
        rate = tl.rsqrt(tl.sum(wide * wide, 1) / dim + eps)
        if not scale_values:
            rate = tl.where(is_value, 1.0, rate)
        if weight is None:
            rate = tl.where(is_value, rate, 1.0)
        raw = _normed(raw, rate, weight, head, at, is_value, there, dim, once)
        other = _normed(other, rate, weight, head, mate, is_value, pairs, dim, once)
    cosine = tl.load(cos + token * turned + at, mask=at < turned, other=1.0).to(tl.float32)
    sine = tl.load(sin + token * turned + at, mask=at < turned, other=0.0).to(tl.float32)
    sine = tl.where(at < turned // 2, -sine, sine)
    result = (raw.to(tl.float32) * cosine[None, :]).to(raw.dtype).to(tl.float32)
    result = (result + other.to(tl.float32) * sine[None, :]).to(raw.dtype)
    result = tl.where(is_value[:, None], raw, result)
    to = (token * made + head) * dim
    tl.store(out + to[:, None] + at[None, :], result, mask=there & (head < made)[:, None])
    slot = tl.load(slots + token)
    if slot >= 0:
        key, value = head - queries, head - (queries + keys)
        to = (slot * keys + key) * dim
        mask = there & ((key >= 0) & (value < 0))[:, None]
        tl.store(key_store + to[:, None] + at[None, :], result, mask=mask)
        to = (slot * keys + value) * dim
        tl.store(value_store + to[:, None] + at[None, :], result, mask=there & is_value[:, None])


@triton.jit
def _normed(raw, rate, weight, head, at, is_value, there, dim: tl.constexpr, once: tl.constexpr):
    """raw [heads, dims] at unit root mean square, and weighed unless they are values."""
    scaled = raw.to(tl.float32) * rate[:, None]
    if weight is not None:
        if not once:
            scaled = scaled.to(raw.dtype).to(tl.float32)
        factor = tl.load(
            weight + head[:, None] * dim + at[None, :], mask=there & (is_value == 0)[:, None], other=1.0
        )
        scaled = scaled * factor.to(tl.float32)
    return scaled.to(raw.dtype)
