"""Counter-based noise: Philox-4x32-10 (Salmon et al., 2011).

A draw depends on its key and counter only, so a request's randomness is the same whatever
batch, slot or replica it runs in, and no generator state has to be kept or restored.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

ROUNDS = 10
_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def uniform(seed: Tensor, block: Tensor, step: Tensor, position: Tensor, draw: int) -> Tensor:
    """One number in (0, 1) per element, float64, of the tensors' common shape.

    seed (up to 63 bits), block, step, position: int64 tensors; `draw` tells apart several
    numbers of the same place. One launch on a GPU that has Triton.
    """
    if seed.is_cuda and find_spec("triton") is not None:
        from easel.kernels.noise_triton import fused_uniform  # noqa: PLC0415  only where there is Triton

        found = torch.empty(seed.shape, dtype=torch.float64, device=seed.device)
        fused_uniform(seed, block, step, position, draw, found)
        return found
    counter = (block, step, position, torch.full_like(seed, draw))
    words = philox(counter, (seed & _LOW, (seed >> 32) & _LOW))
    return (words[0].double() + 0.5) * 2.0**-32


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The 128-bit block of each counter, as four int64 tensors holding unsigned 32-bit words."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(x0, _MULTIPLIERS[0])
        high1, low1 = _multiply(x2, _MULTIPLIERS[1])
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return x0, x1, x2, x3


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low half of a 32 by 32 bit product; int64 wraps, which keeps all 64 bits right."""
    product = word * multiplier
    return (product >> 32) & _LOW, product & _LOW


def reference_philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block in Python integers, as the paper writes it."""
    x = list(counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = x[0] * _MULTIPLIERS[0], x[2] * _MULTIPLIERS[1]
        x = [(second >> 32) ^ x[1] ^ k0, second & _LOW, (first >> 32) ^ x[3] ^ k1, first & _LOW]
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return x[0], x[1], x[2], x[3]
