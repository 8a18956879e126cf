"""Experts in float8: what their weights are multiplied by."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 128  # rows and columns of a block, as published checkpoints have it


@dataclass(frozen=True, slots=True)
class ExpertScales:
    """Factors of float8 weights [E, rows, columns]: one a row [E, rows], or one a block of 128 columns.

    A block has 128 rows or one: its table is [E, ⌈rows / 128⌉ or rows, ⌈columns / 128⌉].
    """

    gate_up: Tensor  # float32  rows = 2I, columns = h; the gates' rows first
    down: Tensor  # float32  rows = h, columns = I

    def check(self, gate_up: Tensor, down: Tensor) -> None:
        """Raise ValueError unless the tables are of these weights' shapes."""
        for name, scale, weight in (("gate_up", self.gate_up, gate_up), ("down", self.down, down)):
            experts, rows, columns = weight.shape
            blocks, groups = -(-rows // BLOCK), -(-columns // BLOCK)
            fitting = ((experts, rows), (experts, rows, groups), (experts, blocks, groups))
            if tuple(scale.shape) not in fitting or scale.dtype != torch.float32:
                raise ValueError(
                    f"ExpertScales: {name} {tuple(weight.shape)} takes float32 factors of one of the shapes "
                    f"{fitting}, not {tuple(scale.shape)} {scale.dtype}"
                )


def dequantised(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The definition: weight [..., rows, columns] float8 times its factors, rounded to `dtype` once.

    scale as in `ExpertScales`, with the same leading dimensions.
    """
    wide = weight.float()
    if scale.ndim < weight.ndim:
        return wide.mul_(scale[..., None]).to(dtype)
    rows, columns = weight.shape[-2:]
    factors = scale.repeat_interleave(BLOCK, dim=-1)[..., :columns]
    if scale.shape[-2] != rows:
        factors = factors.repeat_interleave(BLOCK, dim=-2)[..., :rows, :]
    return wide.mul_(factors).to(dtype)
