"""Rotary position embedding (Su et al., 2021) in the half-split layout of NeoX."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """Angles of every position, computed once in float32 and kept in the compute dtype."""

    cos: Tensor  # [positions, head_dim]
    sin: Tensor  # [positions, head_dim]


def rotary_table(positions: int, head_dim: int, theta: float, dtype: torch.dtype) -> RotaryTable:
    """Angles p·theta^(−2i/head_dim), each frequency repeated for both halves."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), 1.0 / theta**exponent)
    angles = torch.cat((angles, angles), dim=-1)
    return RotaryTable(cos=angles.cos().to(dtype), sin=angles.sin().to(dtype))


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [tokens, heads, d] by cos, sin [tokens, 1, d]; returns x's shape."""
    if cos.shape != (x.shape[0], 1, x.shape[2]):
        raise ValueError(
            f"apply_rotary: x {tuple(x.shape)} needs angles [tokens, 1, d], got {tuple(cos.shape)}"
        )
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned


def reference_apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x_i, x_{i + d/2}) as a complex number, multiplied by e^{i·angle}."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half].double(), x[..., half:].double())
    turn = torch.complex(cos[..., :half].double(), sin[..., :half].double())
    turned = pairs * turn
    return torch.cat((turned.real, turned.imag), dim=-1).to(x.dtype)
