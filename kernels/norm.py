"""RMS normalisation (Zhang and Sennrich, 2019), statistics in float32.

Families round a norm to the dtype of what is normalised either before and after the weight, as most Hugging
Face models do, or once, after it, as Gemma does.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.row_stats import has_triton


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, *, round_once: bool = False) -> Tensor:
    """Scale each last-dimension vector to unit root mean square, then by `weight` if there is one.

    x [..., d] any float dtype; weight [d], or [heads, d] for x [..., heads, d], of the same dtype.
    Returns x's shape and dtype.
    """
    if weight is not None and x.shape[-weight.ndim :] != weight.shape:
        raise ValueError(f"rms_norm: x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}")
    if has_triton(x) and x.is_contiguous() and (weight is None or weight.ndim == 1):
        from easel.kernels.norm_triton import fused_rms_norm  # noqa: PLC0415  only where there is Triton

        return fused_rms_norm(x, weight, eps, round_once=round_once)
    if x.dtype != torch.float32:
        return reference_rms_norm(x, weight, eps, round_once=round_once)
    scaled = F.rms_norm(x, x.shape[-1:], None, eps)
    return scaled if weight is None else scaled.mul_(weight)


def reference_rms_norm(x: Tensor, weight: Tensor | None, eps: float, *, round_once: bool = False) -> Tensor:
    """The definition."""
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if weight is None:
        return scaled.to(x.dtype)
    return scaled.mul_(weight).to(x.dtype) if round_once else weight * scaled.to(x.dtype)


def add_norms(
    x: Tensor,
    added: Tensor,
    weights: Tensor,
    eps: float,
    *,
    added_weight: Tensor | None = None,
    round_once: bool = False,
) -> tuple[Tensor, Tensor]:
    """A residual sum and norms of it, in one launch on a GPU.

    | tensor       | shape     |                                                           |
    |--------------|-----------|-----------------------------------------------------------|
    | x, added     | [n, h]    |                                                           |
    | weights      | [m, h]    | the sum is normalised once for each                       |
    | added_weight | [h]       | what is added is normalised by it; None: added as it is   |

    All share one dtype. Returns the sum [n, h] and the norms [m, n, h].
    """
    if x.shape != added.shape or weights.shape[1:] != x.shape[1:]:
        shapes = tuple(x.shape), tuple(added.shape), tuple(weights.shape)
        raise ValueError(f"add_norms: x, added and weights have shapes {shapes}")
    if has_triton(x):
        from easel.kernels.norm_triton import fused_add_norms  # noqa: PLC0415  only where there is Triton

        return fused_add_norms(x, added, weights, eps, added_weight=added_weight, round_once=round_once)
    if added_weight is not None:
        added = rms_norm(added, added_weight, eps, round_once=round_once)
    total = x + added
    normed = [rms_norm(total, weight, eps, round_once=round_once) for weight in weights]
    return total, normed[0][None] if len(normed) == 1 else torch.stack(normed)
