# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""Experts in four Triton launches: sort the pairs, gate and up, down, sum each token's products.

The definition is `reference_expert_mlp` in kernels/moe.py. Between launches a pair's products are kept in
the dtype of the tokens, as the torch path keeps them; weights and sums are float32. Nothing waits for the
device, and nothing is added in an order that chance decides.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.moe import Activation
from easel.kernels.moe_matmul_triton import activated, write_inner, write_products
from easel.kernels.moe_routes import Routes
from easel.kernels.moe_scales import ExpertScales

SEARCHED = 1024  # pairs that a program sorts at a time
SUMMED = 1024  # columns of a token that a program sums
NO_PLACE = tl.constexpr((1 << 31) - 1)


def fused_experts(
    x: Tensor,
    index: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    activation: Activation,
    scales: ExpertScales | None,
) -> Tensor:
    """`expert_mlp` without grouped_mm; shapes as there, all tensors dense."""
    _require(x, index, weight, gate_up, down, scales)
    routes = sorted_pairs(index, len(gate_up))
    inner = x.new_empty(index.numel(), down.shape[2])
    first, second = (None, None) if scales is None else (scales.gate_up, scales.down)
    write_inner(x, routes, gate_up, first, activation, inner)
    products = x.new_empty(index.numel(), x.shape[1])
    write_products(inner, routes, down, second, products)
    return summed_products(products, routes, weight)


def sorted_pairs(index: Tensor, experts: int, out: Routes | None = None) -> Routes:
    """The routes of index [n, k] int64, dense, whose values are below `experts`; see `moe_routes.route`."""
    routes = Routes.empty(index.numel(), experts, index.device) if out is None else out
    if experts:
        _sort[(experts,)](
            *(index, routes.pair, routes.place, routes.ends, index.numel()), block=SEARCHED, num_warps=4
        )
    return routes


def summed_products(products: Tensor, routes: Routes, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """`moe_routes.weighted_sum`, rounded to the dtype of products [n·k, h]. weight [n, k] float32."""
    tokens, chosen = weight.shape
    width = products.shape[1]
    out = products.new_empty(tokens, width) if out is None else out
    block = min(SUMMED, triton.next_power_of_2(width))
    if tokens:
        _sum[(tokens, triton.cdiv(width, block))](
            *(products, routes.place, weight, out, products.stride(0)),
            width=width,
            chosen=chosen,
            padded=triton.next_power_of_2(chosen),
            block=block,
            enable_fp_fusion=True,  # also what is chosen by default; triton 3.9 warns where it is not said
        )
    return out


def fused_gated(gate_up: Tensor, activation: Activation, out: Tensor | None = None) -> Tensor:
    """`moe.gated` in one launch: [n, 2I] dense to [n, I], rounded once."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width) if out is None else out
    block = min(SUMMED, triton.next_power_of_2(width))
    if rows:
        _gate[(rows, triton.cdiv(width, block))](
            *(gate_up, out),
            width=width,
            gelu=activation is Activation.GELU_TANH,
            block=block,
            enable_fp_fusion=True,
        )
    return out


def _require(
    x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, scales: ExpertScales | None
) -> None:
    tensors = {"x": x, "index": index, "weight": weight, "gate_up": gate_up, "down": down}
    if scales is not None:
        tensors |= {"scales.gate_up": scales.gate_up, "scales.down": scales.down}
    strided = {name: tensor.stride() for name, tensor in tensors.items() if not tensor.is_contiguous()}
    if strided:
        raise ValueError(f"expert_mlp takes dense tensors on a GPU: call contiguous(); strides {strided}")
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    stored = x.dtype if scales is None else torch.float8_e4m3fn
    expected = {"index": torch.int64, "weight": torch.float32, "gate_up": stored, "down": stored}
    if x.dtype not in {torch.float32, torch.bfloat16, torch.float16} or dtypes | expected != dtypes:
        raise ValueError(f"expert_mlp: see its table for what goes together; the dtypes are {dtypes}")


@triton.jit(do_not_specialize=("pairs",))
def _sort(index, pair, place, ends, pairs, block: tl.constexpr):
    """One expert's pairs, in their order, behind those of the experts before it."""
    expert = tl.program_id(0)
    before, own = 0, 0
    for start in range(0, pairs, block):
        number = start + tl.arange(0, block)
        chosen = tl.load(index + number, mask=number < pairs, other=NO_PLACE)
        before += tl.sum((chosen < expert).to(tl.int32), 0)
        own += tl.sum((chosen == expert).to(tl.int32), 0)
    tl.store(ends + expert, before + own)
    if own > 0:
        for start in range(0, pairs, block):
            number = start + tl.arange(0, block)
            mine = tl.load(index + number, mask=number < pairs, other=NO_PLACE) == expert
            at = before + tl.cumsum(mine.to(tl.int32), 0) - 1
            tl.store(pair + at, number, mask=mine)
            tl.store(place + number, at, mask=mine)
            before += tl.sum(mine.to(tl.int32), 0)


@triton.jit
def _sum(
    products, place, weight, out, row_stride, width: tl.constexpr, chosen: tl.constexpr,
    padded: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Some columns of a token's products, by ascending expert, which is by ascending place."""
    token = tl.program_id(0).to(tl.int64)
    choice, column = tl.arange(0, padded), tl.program_id(1) * block + tl.arange(0, block)
    places = tl.load(place + token * chosen + choice, mask=choice < chosen, other=NO_PLACE)
    shares = tl.load(weight + token * chosen + choice, mask=choice < chosen, other=0.0)
    total = tl.zeros((block,), tl.float32)
    last = -1
    for _ in tl.static_range(chosen):
        last = tl.min(tl.where(places > last, places, NO_PLACE), 0)
        share = tl.sum(tl.where(places == last, shares, 0.0), 0)
        product = tl.load(products + last.to(tl.int64) * row_stride + column, mask=column < width, other=0.0)
        total += share * product.to(tl.float32)
    tl.store(out + token * width + column, total.to(out.dtype.element_ty), mask=column < width)


@triton.jit
def _gate(gate_up, out, width: tl.constexpr, gelu: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    gate = tl.load(gate_up + row * 2 * width + column, mask=column < width, other=0.0).to(tl.float32)
    up = tl.load(gate_up + (row * 2 + 1) * width + column, mask=column < width, other=0.0).to(tl.float32)
    tl.store(
        out + row * width + column, (activated(gate, gelu) * up).to(out.dtype.element_ty), mask=column < width
    )
