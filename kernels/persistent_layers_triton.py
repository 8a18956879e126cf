# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""The first stage of a persistent step in Triton: one canvas through all layers of a dense decoder.

A program holds one canvas. What one tile computes and another one reads goes through the scratch, in
global memory, so a barrier stands between all that writes it and all that reads it. Numbers are rounded
where torch's modules round: after each product, each norm, each half of a rotation.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from easel.kernels.logits_triton import products
from easel.kernels.persistent_attention_triton import attend


class Sizes(NamedTuple):
    """Of the model, and of the tiles. Compile-time numbers all."""

    slots: tl.constexpr
    block: tl.constexpr
    rows: tl.constexpr  # the block, padded
    layers: tl.constexpr
    hidden: tl.constexpr
    wide: tl.constexpr  # hidden, padded
    heads: tl.constexpr
    kv_heads: tl.constexpr
    dim: tl.constexpr
    dims: tl.constexpr  # dim, padded
    pairs: tl.constexpr  # dim / 2, padded
    inner: tl.constexpr
    vocabulary: tl.constexpr
    page_size: tl.constexpr
    columns: tl.constexpr  # of a product's tile; a multiple of pairs
    depth: tl.constexpr  # of a product's tile
    members: tl.constexpr  # queries of one head each that attend together
    keys: tl.constexpr  # that they look at together
    epsilon: tl.constexpr
    widen: tl.constexpr  # the interpreter multiplies the bits of bfloat16 numbers
    threads: tl.constexpr  # of the program
    traced: tl.constexpr


class Weights(NamedTuple):
    """See PersistentWeights."""

    embedding: tl.tensor
    input_norm: tl.tensor
    qkv: tl.tensor
    qk_norm: tl.tensor
    out: tl.tensor
    mlp_norm: tl.tensor
    gate_up: tl.tensor
    down: tl.tensor
    final_norm: tl.tensor
    head: tl.tensor
    frequencies: tl.tensor


class Pages(NamedTuple):
    """See PersistentPages."""

    key_store: tl.tensor  # a tuple's `values` are something else to Triton
    value_store: tl.tensor
    table: tl.tensor
    prefix: tl.tensor


class Scratch(NamedTuple):
    """See PersistentScratch."""

    residual: tl.tensor
    normed: tl.tensor
    heads: tl.tensor
    mixed: tl.tensor
    inner: tl.tensor
    cosine: tl.tensor
    sine: tl.tensor


@triton.jit
def denoise(slot, row, there, tokens, weights, pages, tokens_stored, page_count, scratch, traced, sizes):
    """Leave the final norm's output of the canvas in `scratch.normed`.

    `row` [rows] are the canvas's among all slots' positions, `there` those that exist; `traced` is
    where the residual stream after each layer goes, [layers, block, h].
    """
    _embed(row, there, tokens, weights.embedding, scratch.residual, sizes)
    tl.debug_barrier()
    for layer in range(sizes.layers):
        _normalise(row, there, weights.input_norm + layer * sizes.hidden, scratch, sizes)
        tl.debug_barrier()
        _queries_keys_values(row, there, layer, weights, scratch, sizes)
        tl.debug_barrier()
        attend(slot, layer, pages, tokens_stored, page_count, scratch, sizes)
        tl.debug_barrier()
        out = weights.out + layer * sizes.hidden * sizes.heads * sizes.dim
        _add(row, there, scratch.mixed, out, sizes.heads * sizes.dim, scratch.residual, sizes)
        tl.debug_barrier()
        _normalise(row, there, weights.mlp_norm + layer * sizes.hidden, scratch, sizes)
        tl.debug_barrier()
        gate_up = weights.gate_up + layer * 2 * sizes.inner * sizes.hidden
        _gate(row, there, gate_up, scratch, sizes)
        tl.debug_barrier()
        down = weights.down + layer * sizes.hidden * sizes.inner
        _add(row, there, scratch.inner, down, sizes.inner, scratch.residual, sizes)
        tl.debug_barrier()
        if sizes.traced:
            to = traced + layer * sizes.block * sizes.hidden
            copy_rows(row, slot * sizes.block, there, scratch.residual, to, sizes)
    _normalise(row, there, weights.final_norm, scratch, sizes)
    tl.debug_barrier()


@triton.jit
def write_angles(slot, row, there, frequencies, prefix, scratch, sizes):
    """Cosines and sines of the canvas's positions, which stay the same from step to step."""
    half: tl.constexpr = sizes.dim // 2
    pair = tl.arange(0, sizes.pairs)
    turn = tl.load(frequencies + pair, mask=pair < half, other=0.0)
    position = tl.load(prefix + slot) + row - slot * sizes.block
    angle = position.to(tl.float32)[:, None] * turn[None, :]
    at, mask = row[:, None] * half + pair[None, :], there[:, None] & (pair < half)[None, :]
    tl.store(scratch.cosine + at, tl.cos(angle).to(scratch.cosine.dtype.element_ty), mask=mask)
    tl.store(scratch.sine + at, tl.sin(angle).to(scratch.sine.dtype.element_ty), mask=mask)


@triton.jit
def copy_rows(row, first, there, source, target, sizes):
    """The canvas's rows [rows, h], to where `target` has them without those of other slots."""
    column = tl.arange(0, sizes.wide)
    mask = there[:, None] & (column < sizes.hidden)[None, :]
    x = tl.load(source + row[:, None] * sizes.hidden + column[None, :], mask=mask)
    tl.store(target + (row - first)[:, None] * sizes.hidden + column[None, :], x, mask=mask)


@triton.jit
def _embed(row, there, tokens, embedding, residual, sizes):
    column = tl.arange(0, sizes.wide)
    mask = there[:, None] & (column < sizes.hidden)[None, :]
    token = tl.load(tokens + row, mask=there, other=0)
    x = tl.load(embedding + token[:, None] * sizes.hidden + column[None, :], mask=mask)
    tl.store(residual + row[:, None] * sizes.hidden + column[None, :], x, mask=mask)


@triton.jit
def _normalise(row, there, weight, scratch, sizes):
    """RMS norm of the residual stream."""
    column = tl.arange(0, sizes.wide)
    in_width = column < sizes.hidden
    at, mask = row[:, None] * sizes.hidden + column[None, :], there[:, None] & in_width[None, :]
    x = tl.load(scratch.residual + at, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 1) / sizes.hidden + sizes.epsilon)
    x = _rounded(x * scale[:, None], scratch.normed)
    x = x * tl.load(weight + column, mask=in_width, other=0.0).to(tl.float32)[None, :]
    tl.store(scratch.normed + at, x.to(scratch.normed.dtype.element_ty), mask=mask)


@triton.jit
def _queries_keys_values(row, there, layer, weights, scratch, sizes):
    """Products, norms and rotation of some heads at a time; each head's two halves apart, as pairs turn."""
    half: tl.constexpr = sizes.dim // 2
    turning: tl.constexpr = sizes.heads + sizes.kv_heads
    outputs: tl.constexpr = (turning + sizes.kv_heads) * sizes.dim
    qkv = weights.qkv + layer * outputs * sizes.hidden
    norm = weights.qk_norm + layer * turning * sizes.dim
    for first in range(0, turning + sizes.kv_heads, sizes.columns // sizes.pairs):
        column = tl.arange(0, sizes.columns)
        head, pair = first + column // sizes.pairs, column % sizes.pairs
        real = (head < turning + sizes.kv_heads) & (pair < half)
        output = tl.where(real, head * sizes.dim + pair, outputs)  # beyond them products are zero
        a = _product(row, there, scratch.normed, qkv, output, outputs, sizes.hidden, sizes)
        b = _product(row, there, scratch.normed, qkv, output + half, outputs, sizes.hidden, sizes)
        turned = real & (head < turning)
        scale = _head_scale(a, b, sizes)
        a_norm = tl.load(norm + output, mask=turned, other=0.0).to(tl.float32)[None, :]
        b_norm = tl.load(norm + output + half, mask=turned, other=0.0).to(tl.float32)[None, :]
        x = _rounded(_rounded(a * scale, scratch.heads) * a_norm, scratch.heads)
        y = _rounded(_rounded(b * scale, scratch.heads) * b_norm, scratch.heads)
        angle, mask = row[:, None] * half + pair[None, :], there[:, None] & real[None, :]
        cosine = tl.load(scratch.cosine + angle, mask=mask, other=0.0).to(tl.float32)
        sine = tl.load(scratch.sine + angle, mask=mask, other=0.0).to(tl.float32)
        a = tl.where(turned[None, :], _rounded(x * cosine, scratch.heads) - y * sine, a)
        b = tl.where(turned[None, :], _rounded(y * cosine, scratch.heads) + x * sine, b)
        at = scratch.heads + row[:, None] * outputs + output[None, :]
        tl.store(at, a.to(scratch.heads.dtype.element_ty), mask=mask)
        tl.store(at + half, b.to(scratch.heads.dtype.element_ty), mask=mask)


@triton.jit
def _head_scale(a, b, sizes):
    """One over the root mean square of each head's dims, whose halves are a and b; [rows, columns]."""
    members: tl.constexpr = sizes.columns // sizes.pairs
    squares = tl.reshape(a * a + b * b, (sizes.rows, members, sizes.pairs))
    scale = tl.rsqrt(tl.sum(squares, 2) / sizes.dim + sizes.epsilon)
    spread = tl.broadcast_to(scale[:, :, None], (sizes.rows, members, sizes.pairs))
    return tl.reshape(spread, (sizes.rows, sizes.columns))


@triton.jit
def _gate(row, there, gate_up, scratch, sizes):
    """silu(gate) * up of the normed stream."""
    for first in range(0, sizes.inner, sizes.columns):
        column = first + tl.arange(0, sizes.columns)
        real, outputs = column < sizes.inner, 2 * sizes.inner
        output = tl.where(real, column, outputs)
        gate = _product(row, there, scratch.normed, gate_up, output, outputs, sizes.hidden, sizes)
        up = _product(row, there, scratch.normed, gate_up, output + sizes.inner, outputs, sizes.hidden, sizes)
        x = _rounded(gate / (1.0 + tl.exp(-gate)), scratch.inner) * up
        at, mask = row[:, None] * sizes.inner + column[None, :], there[:, None] & real[None, :]
        tl.store(scratch.inner + at, x.to(scratch.inner.dtype.element_ty), mask=mask)


@triton.jit
def _add(row, there, source, weight, width: tl.constexpr, residual, sizes):
    """residual += source·Wᵀ, of `width` inputs."""
    for first in range(0, sizes.hidden, sizes.columns):
        column = first + tl.arange(0, sizes.columns)
        at, mask = (
            row[:, None] * sizes.hidden + column[None, :],
            there[:, None] & (column < sizes.hidden)[None, :],
        )
        before = tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
        after = before + _product(row, there, source, weight, column, sizes.hidden, width, sizes)
        tl.debug_barrier()  # no thread reads what another one has written
        tl.store(residual + at, after.to(residual.dtype.element_ty), mask=mask)


@triton.jit
def _product(row, there, source, weight, output, outputs: tl.constexpr, width: tl.constexpr, sizes):
    """source·Wᵀ of the canvas's rows and some outputs, rounded; [rows, columns] float32."""
    found = products(
        source, weight, row, there, output, outputs, width,
        sizes.rows, sizes.columns, sizes.depth, sizes.widen,
    )  # fmt: skip
    return _rounded(found, source)


@triton.jit
def _rounded(x, like):
    """What is left of x where it is kept in the dtype that `like` points to."""
    return x.to(like.dtype.element_ty).to(tl.float32)
