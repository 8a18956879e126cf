"""Rotary position embedding (Su et al., 2021) in the half-split layout of NeoX."""

import torch
from torch import Tensor


def inverse_frequencies(rotary_dim: int, theta: float) -> Tensor:
    """Radians a position of each pair of dims, theta^(−2i/rotary_dim): [rotary_dim / 2] float32."""
    if rotary_dim % 2:
        raise ValueError(f"inverse_frequencies: rotary_dim {rotary_dim} must be even")
    return 1.0 / theta ** (torch.arange(0, rotary_dim, 2, dtype=torch.int64).float() / rotary_dim)


def rotary_angles(positions: Tensor, inv_freq: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions [n] int64: [n, 1, 2 * len(inv_freq)] each, both halves alike.

    Computed in float32, then rounded to `dtype` once.
    """
    angles = positions.float()[:, None] * inv_freq
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat((cos, cos), dim=-1)[:, None], torch.cat((sin, sin), dim=-1)[:, None]


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first r of the d dims of x [tokens, heads, d] by cos, sin [tokens, 1, r].

    Returns x's shape; dims from r on are copied.
    """
    width = cos.shape[-1]
    if cos.shape != (x.shape[0], 1, width) or cos.shape != sin.shape or width > x.shape[2] or width % 2:
        raise ValueError(
            f"apply_rotary: x {tuple(x.shape)} needs angles [tokens, 1, r], "
            f"got {tuple(cos.shape)} and {tuple(sin.shape)}"
        )
    half = width // 2
    turned = x * cos if width == x.shape[2] else torch.cat((x[..., :width] * cos, x[..., width:]), dim=-1)
    turned[..., :half].addcmul_(x[..., half:width], sin[..., :half], value=-1)
    turned[..., half:width].addcmul_(x[..., :half], sin[..., half:])
    return turned


def reference_apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x_i, x_{i + r/2}) as a complex number, multiplied by e^{i·angle}."""
    width = cos.shape[-1]
    half = width // 2
    pairs = torch.complex(x[..., :half].double(), x[..., half:width].double())
    turn = torch.complex(cos[..., :half].double(), sin[..., :half].double())
    turned = pairs * turn
    return torch.cat((turned.real, turned.imag, x[..., width:].double()), dim=-1).to(x.dtype)
