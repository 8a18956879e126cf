"""Mixture of experts: each token goes through a few gated MLPs out of many (Shazeer et al., 2017).

On a GPU four Triton launches do it, or `torch.nn.functional.grouped_mm` between two of them; nothing
waits for the device there. Elsewhere few tokens go through grouped_mm too; of many, an expert's are
multiplied at once, and experts without tokens are not read. `fixed` keeps a token's result, to the last
bit, from depending on the others: an expert's rows are whole tiles, see row_tiles.py.
"""

from enum import Enum
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.linear import linear
from easel.kernels.moe_router import (
    grouped_sigmoid_router,
    reference_grouped_sigmoid_router,
    reference_softmax_router,
    softmax_router,
)
from easel.kernels.moe_routes import Routes, route, weighted_sum
from easel.kernels.moe_scales import ExpertScales, dequantised
from easel.kernels.row_stats import has_triton
from easel.kernels.row_tiles import ROW_TILE

__all__ = [
    "Activation",
    "ExpertScales",
    "expert_mlp",
    "expert_mlp_static",
    "gated",
    "grouped_sigmoid_router",
    "reference_expert_mlp",
    "reference_grouped_sigmoid_router",
    "reference_softmax_router",
    "softmax_router",
]

# Tokens of an expert from which on grouped_mm's large tiles pay for its two more passes over memory.
GROUPED_FROM = 128
# Pairs of a token and an expert up to which a CPU multiplies all experts in one call: it is faster at any
# number, but holds what every pair comes to at once.
GROUPED_ON_CPU = 2048


class Activation(Enum):
    """What the gate of an MLP goes through."""

    SILU = "silu"
    GELU_TANH = "gelu, tanh approximation"


def expert_mlp(
    x: Tensor,
    index: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    activation: Activation,
    scales: ExpertScales | None = None,
    *,
    fixed: bool = False,
) -> Tensor:
    """Weighted sum of each token's experts.

    | tensor  | shape      | dtype                                                    |
    |---------|------------|----------------------------------------------------------|
    | x       | [n, h]     | float32, bfloat16 or float16                             |
    | index   | [n, k]     | int64, the experts of each token, all different          |
    | weight  | [n, k]     | float32                                                  |
    | gate_up | [E, 2I, h] | x's, the gates' rows first; with `scales` float8_e4m3fn  |
    | down    | [E, h, I]  | the same                                                 |

    Returns [n, h] of x's dtype. A token's experts are summed in float32 by ascending number, whatever
    else is in the batch; with `fixed` its products too are independent of it. Raises ValueError for
    shapes that do not fit.
    """
    _check(x, index, weight, gate_up, down, scales)
    if has_triton(x):
        # Imported here: triton is only where there is a GPU.
        from easel.kernels import moe_triton  # noqa: PLC0415

        if not fixed and suits_grouped_mm(x, index.numel(), gate_up, down):
            routes = moe_triton.sorted_pairs(index, len(gate_up))
            products = _grouped_products(x, routes, gate_up, down, activation)
            return moe_triton.summed_products(products, routes, weight)
        return moe_triton.fused_experts(x, index, weight, gate_up, down, activation, scales)
    if scales is None and index.numel() <= GROUPED_ON_CPU and _dense_rows(x, gate_up, down):
        routes = route(index, len(gate_up), ROW_TILE if fixed else 1)
        products = _grouped_products(x, routes, gate_up, down, activation, fixed=fixed)
        return weighted_sum(products, routes, weight).to(x.dtype)
    return _by_expert(x, index, weight, gate_up, down, activation, scales, fixed=fixed)


def expert_mlp_static(
    x: Tensor,
    index: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    activation: Activation,
    scales: ExpertScales | None = None,
    *,
    fixed: bool = False,
) -> Tensor:
    """`expert_mlp` in plain torch operations that depend on no value: for a step that is recorded.

    Takes copies of the weights where they are float8, or where h or I is no multiple of 16 bytes. `fixed`
    holds for activations only: how many rows an expert has depends on values, and so do its tiles.
    """
    _check(x, index, weight, gate_up, down, scales)
    if scales is not None:
        gate_up = dequantised(gate_up, scales.gate_up, x.dtype)
        down = dequantised(down, scales.down, x.dtype)
    routes = route(index, len(gate_up))
    products = _grouped_products(x, routes, gate_up, down, activation, fixed=fixed)
    return weighted_sum(products, routes, weight).to(x.dtype)


def suits_grouped_mm(x: Tensor, pairs: int, gate_up: Tensor, down: Tensor) -> bool:
    """Whether on a GPU grouped_mm is the one to multiply `pairs` pairs of a token and an expert.

    It is one kernel only for bfloat16 on compute capability 9.0 and 10.x (elsewhere a loop that waits
    for the device), where rows are multiples of 16 bytes; and it may sum a row in another order in
    another batch.
    """
    if pairs < GROUPED_FROM * len(gate_up):
        return False
    aligned = all(tensor.shape[2] % 8 == 0 and tensor.data_ptr() % 16 == 0 for tensor in (gate_up, down))
    narrow = x.dtype == gate_up.dtype == down.dtype == torch.bfloat16
    return aligned and narrow and torch.cuda.get_device_capability(x.device)[0] in {9, 10}


def _dense_rows(x: Tensor, gate_up: Tensor, down: Tensor) -> bool:
    """Whether grouped_mm takes the tensors as they are: rows are multiples of 16 bytes, of one dtype."""
    rows = (tensor.shape[-1] * tensor.element_size() % 16 for tensor in (x, gate_up, down))
    return x.dtype == gate_up.dtype == down.dtype and not any(rows)


def gated(gate_up: Tensor, activation: Activation, *, fixed: bool = False) -> Tensor:
    """activation(gate) * up of [..., 2I], the gate's half first. Returns [..., I].

    With `fixed` an element's result does not depend on where torch's threads cut the rest.
    """
    if has_triton(gate_up) and gate_up.ndim == 2 and gate_up.is_contiguous():
        from easel.kernels.moe_triton import fused_gated  # noqa: PLC0415

        return fused_gated(gate_up, activation)
    gate, up = gate_up.chunk(2, dim=-1)
    if fixed:
        return _by_exponential(gate.float(), activation).to(gate_up.dtype).mul_(up)
    if activation is Activation.SILU:
        return F.silu(gate).mul_(up)
    return F.gelu(gate, approximate="tanh").mul_(up)


def _by_exponential(gate: Tensor, activation: Activation) -> Tensor:
    """The activation of a float32 gate, which is gate / (1 + e^−t), t the gate itself or GELU's 2u.

    torch's own take another exponential for what is left of their vectors, and threads cut anywhere.
    """
    if activation is Activation.SILU:
        turned = gate.neg()
    else:  # 2·√(2/π)·(x + 0.044715·x³)
        turned = (gate * gate).mul_(-0.07135481282552557).sub_(1.5957691216057308).mul_(gate)
    turned.exp_().add_(1.0)
    return torch.div(gate, turned, out=turned)


def reference_expert_mlp(
    x: Tensor,
    index: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    activation: Activation,
    scales: ExpertScales | None = None,
) -> Tensor:
    """The definition, a token and an expert at a time, in float64."""
    if scales is not None:
        gate_up = dequantised(gate_up, scales.gate_up, torch.float32)
        down = dequantised(down, scales.down, torch.float32)
    out = torch.zeros_like(x, dtype=torch.float64)
    size = down.shape[2]
    for row, token in enumerate(x.double()):
        for expert, share in zip(_ints(index[row]), weight[row].double(), strict=True):
            both = gate_up[expert].double() @ token
            gate, up = both[:size], both[size:]
            turned = F.silu(gate) if activation is Activation.SILU else F.gelu(gate, approximate="tanh")
            out[row] += share * (down[expert].double() @ (turned * up))
    return out.to(x.dtype)


def _by_expert(
    x: Tensor,
    index: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    activation: Activation,
    scales: ExpertScales | None,
    *,
    fixed: bool,
) -> Tensor:
    """One expert after another, of those that have tokens."""
    order = index.flatten().argsort(stable=True)
    token, share = order // index.shape[1], weight.flatten()[order, None]
    out = torch.zeros_like(x, dtype=torch.float32)
    start = 0
    for expert, count in enumerate(_ints(index.flatten().bincount(minlength=len(gate_up)))):
        if not count:
            continue
        rows = slice(start, start + count)
        first, second = gate_up[expert], down[expert]
        if scales is not None:
            first = dequantised(first, scales.gate_up[expert], x.dtype)
            second = dequantised(second, scales.down[expert], x.dtype)
        product = linear if fixed else F.linear
        inner = gated(product(x[token[rows]], first), activation, fixed=fixed)
        out.index_add_(0, token[rows], product(inner, second).float().mul_(share[rows]))
        start += count
    return out.to(x.dtype)


def _grouped_products(
    x: Tensor, routes: Routes, gate_up: Tensor, down: Tensor, activation: Activation, *, fixed: bool = False
) -> Tensor:
    """What each pair's expert makes of its token, [places, h]."""
    chosen = len(routes.place) // max(len(x), 1)
    given = x.index_select(0, routes.pair // max(chosen, 1))
    inner = gated(_grouped_linear(given, gate_up, routes.ends), activation, fixed=fixed)
    return _grouped_linear(inner, down, routes.ends)


def _grouped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """x [rows, in] times the weight [E, out, in] of each row's expert: [rows, out]."""
    missing = -x.shape[1] % (16 // x.element_size())  # grouped_mm takes rows of multiples of 16 bytes
    if missing:
        x, weight = F.pad(x, (0, missing)), F.pad(weight, (0, missing))
    return F.grouped_mm(x, weight.mT, offs=ends)


def _ints(tensor: Tensor) -> list[int]:
    return cast(list[int], tensor.tolist())


def _check(
    x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, scales: ExpertScales | None
) -> None:
    experts, hidden, size = down.shape
    if (
        gate_up.shape != (experts, 2 * size, hidden)
        or x.shape[1:] != (hidden,)
        or index.shape != weight.shape
        or len(index) != len(x)
    ):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (x, index, weight, gate_up, down))
        raise ValueError(f"expert_mlp: x, index, weight, gate_up, down have shapes {shapes}")
    if scales is not None:
        scales.check(gate_up, down)
