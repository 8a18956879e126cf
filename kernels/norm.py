"""RMS normalisation (Zhang and Sennrich, 2019), statistics in float32."""

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Scale each last-dimension vector to unit root mean square, then by `weight` if there is one.

    x [..., d] any float dtype; weight [d], or [heads, d] for x [..., heads, d], of the same dtype.
    Returns x's shape and dtype.
    """
    if weight is not None and x.shape[-weight.ndim :] != weight.shape:
        raise ValueError(f"rms_norm: x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}")
    if x.dtype != torch.float32:
        return reference_rms_norm(x, weight, eps)
    scaled = F.rms_norm(x, x.shape[-1:], None, eps)
    return scaled if weight is None else scaled.mul_(weight)


def reference_rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """The definition, rounded to x's dtype before the weight as Hugging Face models do."""
    wide = x.float()
    scaled = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    return scaled if weight is None else weight * scaled
