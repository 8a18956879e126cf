# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""Norms, and a residual sum with its norms, in one Triton launch: a program takes a token's whole row."""

import torch
import triton
import triton.language as tl
from torch import Tensor


def fused_rms_norm(
    x: Tensor, weight: Tensor | None, eps: float, *, round_once: bool = False, out: Tensor | None = None
) -> Tensor:
    """`norm.rms_norm` of x [..., d] by a weight [d], both dense."""
    out = torch.empty_like(x) if out is None else out
    _launch(x.view(-1, x.shape[-1]), None, None, weight, out, out, eps, norms=1, round_once=round_once)
    return out


def fused_add_norms(
    x: Tensor,
    added: Tensor,
    weights: Tensor,
    eps: float,
    *,
    added_weight: Tensor | None = None,
    round_once: bool = False,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """`norm.add_norms`; its rounding too. Tensors are dense; `out` has the shapes of the results."""
    given = [tensor for tensor in (x, added, weights, added_weight) if tensor is not None]
    if any(not tensor.is_contiguous() or tensor.dtype != x.dtype for tensor in given):
        found = [(tensor.dtype, tensor.stride()) for tensor in given]
        raise ValueError(f"add_norms takes dense tensors of one dtype on a GPU, not {found}")
    total, normed = (torch.empty_like(x), x.new_empty(len(weights), *x.shape)) if out is None else out
    _launch(x, added, added_weight, weights, total, normed, eps, norms=len(weights), round_once=round_once)
    return total, normed


def _launch(
    x: Tensor,
    added: Tensor | None,
    added_weight: Tensor | None,
    weights: Tensor | None,
    total: Tensor,
    normed: Tensor,
    eps: float,
    *,
    norms: int,
    round_once: bool,
) -> None:
    """x [n, width]; `total` is only written where something is added."""
    rows, width = x.shape
    padded = triton.next_power_of_2(width)
    if rows:
        _add_norms[(rows,)](
            *(x, added, added_weight, weights, total, normed, rows, eps),
            width=width,
            padded=padded,
            norms=norms,
            once=round_once,
            num_warps=min(max(padded // 512, 1), 8),
            enable_fp_fusion=True,  # also what is chosen by default; triton 3.9 warns where it is not said
        )


@triton.jit(do_not_specialize=("rows",))
def _add_norms(
    x, added, added_weight, weights, total, normed, rows, eps,
    width: tl.constexpr, padded: tl.constexpr, norms: tl.constexpr, once: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, padded)
    there, at = column < width, row * width + column
    summed = tl.load(x + at, mask=there, other=0.0)
    if added is not None:
        given = tl.load(added + at, mask=there, other=0.0)
        if added_weight is not None:
            scaled = unit(given.to(tl.float32), eps, width)
            given = weighed(scaled, tl.load(added_weight + column, mask=there, other=0.0), once)
        summed = (summed.to(tl.float32) + given.to(tl.float32)).to(summed.dtype)
        tl.store(total + at, summed, mask=there)
    scaled = unit(summed.to(tl.float32), eps, width)
    for nth in tl.static_range(norms):
        result = scaled.to(summed.dtype)
        if weights is not None:
            result = weighed(scaled, tl.load(weights + nth * width + column, mask=there, other=0.0), once)
        tl.store(normed + nth * rows.to(tl.int64) * width + at, result, mask=there)


@triton.jit
def unit(x, eps, width: tl.constexpr):
    """A vector of `width` numbers [padded] float32, whose others are 0, at unit root mean square."""
    return x * tl.rsqrt(tl.sum(x * x, 0) / width + eps)


@triton.jit
def weighed(scaled, weight, once: tl.constexpr):
    """scaled·weight in the dtype of the weight, rounded once or before and after the product."""
    if not once:
        scaled = scaled.to(weight.dtype).to(tl.float32)
    return (scaled * weight.to(tl.float32)).to(weight.dtype)
