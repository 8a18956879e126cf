"""Weights of eight bits: float8_e4m3fn numbers, and float32 scales that they are multiplied with.

A scale belongs to an output channel, or to a block of 128 x 128 numbers as published with
DeepSeek-V3 (2024, section 3.3), whose products this follows: activations are rounded too, each
token's in groups with scales found as they come, and sums are float32. Blocks that were cut
where matrices are joined have one scale for each of their rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import ScalingType

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0  # that float8_e4m3fn holds
BLOCK = 128  # rows and columns that share a scale
ALIGNMENT = 16  # rows and columns of matrices that the libraries' product takes
_STRIP = 128  # rows that are converted at a time, so that what is taken besides stays small


@dataclass(frozen=True, slots=True, eq=False)
class Fp8Weight:
    """A matrix, or one of each expert. Raises ValueError when numbers and scales do not fit together."""

    data: Tensor  # [..., out, in]  float8_e4m3fn
    scale: Tensor  # float32  [..., out], or [..., ceil(out / 128) or out, ceil(in / 128)]

    def __post_init__(self) -> None:
        shape = self.data.shape
        fits = len(shape) > 1 and self.scale.shape in (shape[:-1], block_shape(shape), row_block_shape(shape))
        if not fits or self.data.dtype != FLOAT8 or self.scale.dtype != torch.float32:
            raise ValueError(f"Fp8Weight: {_kind(self.data)} numbers with {_kind(self.scale)} scales")

    @property
    def shape(self) -> torch.Size:
        return self.data.shape

    @property
    def per_channel(self) -> bool:
        """Whether each output channel has a scale, not each block."""
        return self.scale.ndim < self.data.ndim

    @property
    def block_rows(self) -> int:
        """Rows that share a scale."""
        return 1 if self.per_channel or self.scale.shape[-2] == self.data.shape[-2] else BLOCK


def block_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many blocks numbers [..., out, in] have, [..., ceil(out / 128), ceil(in / 128)]."""
    *experts, rows, columns = shape
    return (*experts, -(-rows // BLOCK), -(-columns // BLOCK))


def row_block_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many blocks of a single row numbers [..., out, in] have, [..., out, ceil(in / 128)]."""
    return (*shape[:-1], -(-shape[-1] // BLOCK))


def quantise_channels(weight: Tensor) -> Fp8Weight:
    """Any float weight [..., out, in], each channel's largest number becoming the largest float8."""
    data = torch.empty(weight.shape, dtype=FLOAT8, device=weight.device)
    scale = torch.empty(weight.shape[:-1], dtype=torch.float32, device=weight.device)
    for wide, narrow, of_strip in _strips(weight, data, scale):
        numbers = wide.float()
        of_strip.copy_(_scales(numbers.abs().amax(-1)))
        narrow.copy_(numbers / of_strip[:, None])
    return Fp8Weight(data, scale)


def quantise_blocks(weight: Tensor) -> Fp8Weight:
    """Any float weight [..., out, in], the largest number of each block becoming the largest float8."""
    rows, columns = weight.shape[-2:]
    *experts, down, across = block_shape(weight.shape)
    numbers = F.pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = numbers.view(*experts, down, BLOCK, across, BLOCK)
    scale = _scales(blocks.abs().amax((-3, -1)))
    data = (blocks / scale[..., :, None, :, None]).view_as(numbers)[..., :rows, :columns]
    return Fp8Weight(data.contiguous().to(FLOAT8), scale)


def dequantise(weight: Fp8Weight, dtype: torch.dtype) -> Tensor:
    """The numbers [..., out, in] that are meant, each rounded to `dtype` once, after its scale."""
    out = weight.data.to(dtype)  # exact in every dtype of 16 bits or more
    multiply_scales(out, weight.scale)
    return out


def multiply_scales(numbers: Tensor, scale: Tensor) -> None:
    """Multiply float `numbers` [..., out, in] in place, in float32.

    scale [..., out or 1], or [..., ceil(out / 128) or out, ceil(in / 128)].
    """
    rows, columns = numbers.shape[-2:]
    if scale.ndim < numbers.ndim:
        for strip, of_strip in _strips(numbers, scale.expand(numbers.shape[:-1])):
            strip.mul_(of_strip[:, None])
        return
    if scale.shape[-2] != rows:
        scale = scale.repeat_interleave(BLOCK, dim=-2)[..., :rows, :]
    for strip, of_strip in _strips(numbers, scale):
        strip.mul_(of_strip.repeat_interleave(BLOCK, dim=-1)[:, :columns])


def quantise_tokens(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Activations x [n, in] as float8 [n, in], and a float32 scale for each `group` of a token's numbers.

    The scales are [n, ceil(in / group)].
    """
    if x.is_cuda:
        from easel.kernels.fp8_triton import quantise_groups  # noqa: PLC0415 only where there is a GPU

        return quantise_groups(x, group)
    return reference_quantise_tokens(x, group)


def fp8_linear(x: Tensor, weight: Fp8Weight, bias: Tensor | None = None) -> Tensor:
    """x [..., in] times the weight [out, in], plus bias [out]; [..., out] of x's dtype.

    On a GPU a product of float8 numbers: the libraries', with one scale for each token, where the
    weight has one for each channel and its sides are multiples of 16; otherwise Triton's, with one
    for each 128 of a token's numbers. On a CPU the same arithmetic step by step, which is slow:
    a CPU is better served by weights that were dequantised once.
    """
    flat = x.flatten(0, -2)
    if flat.shape[-1] != weight.shape[-1] or weight.data.ndim != 2:
        raise ValueError(f"fp8_linear: x {tuple(x.shape)} and a weight {tuple(weight.shape)}")
    if not x.is_cuda:
        found = reference_fp8_linear(flat, weight)
    elif _row_wise(x.dtype, weight):
        found = _row_wise_product(flat, weight)
    else:
        from easel.kernels.fp8_triton import group_product  # noqa: PLC0415 only where there is a GPU

        found = group_product(flat, weight)
    found = found if bias is None else found + bias
    return found.view(*x.shape[:-1], weight.shape[0])


def reference_fp8_linear(x: Tensor, weight: Fp8Weight) -> Tensor:
    """The definition: x [n, in] rounded as the weight's product rounds it, then products in float32."""
    group = x.shape[-1] if _row_wise(x.dtype, weight) else BLOCK
    rounded, scale = reference_quantise_tokens(x, group)
    each = scale.repeat_interleave(group, dim=-1)[:, : x.shape[-1]]
    return F.linear(rounded.float() * each, dequantise(weight, torch.float32)).to(x.dtype)


def reference_quantise_tokens(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The definition of `quantise_tokens`."""
    rows, columns = x.shape
    numbers = F.pad(x.float(), (0, -columns % group))
    groups = numbers.view(rows, numbers.shape[1] // group, group)
    scale = _scales(groups.abs().amax(-1))
    rounded = (groups / scale[..., None]).view_as(numbers)[:, :columns]
    return rounded.contiguous().to(FLOAT8), scale


def _row_wise(dtype: torch.dtype, weight: Fp8Weight) -> bool:
    """Whether the libraries' product takes it: it gives bfloat16 only."""
    aligned = all(size % ALIGNMENT == 0 for size in weight.shape)
    return weight.per_channel and aligned and dtype == torch.bfloat16


def _row_wise_product(x: Tensor, weight: Fp8Weight) -> Tensor:
    """x [n, in] to [n, out]. The fast way to accumulate, in fewer bits, is not taken."""
    if not len(x):
        return x.new_empty(0, weight.shape[0])
    rounded, scale = quantise_tokens(x, x.shape[-1])
    return F.scaled_mm(
        rounded,
        weight.data.t(),
        scale,
        ScalingType.RowWise,
        weight.scale[None],
        ScalingType.RowWise,
        output_dtype=x.dtype,
        use_fast_accum=False,
    )


def _scales(largest: Tensor) -> Tensor:
    """What takes each magnitude to the largest float8; zeros stay zeros."""
    return torch.where(largest > 0, largest / LARGEST, 1.0)


def _strips(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A few rows at a time of tensors [..., out, in] and [..., out], whatever their strides."""
    if tensors[0].ndim > 2:
        for parts in zip(*tensors, strict=True):
            yield from _strips(*parts)
        return
    for start in range(0, len(tensors[0]), _STRIP):
        yield tuple(tensor[start : start + _STRIP] for tensor in tensors)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
