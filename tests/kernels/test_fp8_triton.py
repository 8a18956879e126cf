"""Products of float8 numbers, on a GPU or in Triton's interpreter, against their definition."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from easel.kernels.fp8 import (
    BLOCK,
    FLOAT8,
    Fp8Weight,
    fp8_linear,
    quantise_blocks,
    quantise_channels,
    reference_fp8_linear,
    reference_quantise_tokens,
)
from easel.kernels.fp8_triton import group_product, multiply_groups, quantise_groups
from tests.kernels.attention_inputs import KERNEL_DEVICE, NAN

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weight_of(kind: str, out: int, inner: int) -> Fp8Weight:
    matrix = draw(out, inner, seed=1) * draw(out, 1, seed=2).exp()
    if kind == "channels":
        return quantise_channels(matrix)
    blocks = quantise_blocks(matrix)
    if kind == "blocks":
        return blocks
    return Fp8Weight(blocks.data, blocks.scale.repeat_interleave(BLOCK, dim=0)[:out] * draw(out, 1).exp())


def moved(weight: Fp8Weight) -> Fp8Weight:
    return Fp8Weight(weight.data.to(KERNEL_DEVICE), weight.scale.to(KERNEL_DEVICE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["channels", "blocks", "rows of blocks"])
@pytest.mark.parametrize(
    ("rows", "out", "inner"), [(1, 7, 5), (17, 130, 257), (33, 64, 128), (70, 257, 300), (3, 300, 40)]
)
def test_products_equal_the_definition(
    kind: str, rows: int, out: int, inner: int, dtype: torch.dtype
) -> None:
    x, weight = draw(rows, inner), weight_of(kind, out, inner)
    data, scale = reference_quantise_tokens(x, BLOCK)
    found = torch.full((rows, out), NAN, dtype=dtype, device=KERNEL_DEVICE)
    multiply_groups(data.to(KERNEL_DEVICE), scale.to(KERNEL_DEVICE), moved(weight), found)
    expected = reference_fp8_linear(x, weight)
    # Sums of 128 products may keep fewer bits than float32 on a GPU.
    size = 14 if found.is_cuda else 20
    bound = 2.0**-size * (x.abs() @ (weight.data.float().abs() * scales_of(weight)).t())
    off = (found.float().cpu() - expected).abs()
    assert (off <= bound + torch.finfo(dtype).eps * expected.abs()).all()


def scales_of(weight: Fp8Weight) -> Tensor:
    if weight.per_channel:
        return weight.scale[:, None]
    rows = weight.scale.repeat_interleave(weight.block_rows, dim=0)[: weight.shape[0]]
    return rows.repeat_interleave(BLOCK, dim=1)[:, : weight.shape[1]]


def test_a_token_has_the_same_result_whatever_the_others_are() -> None:
    data, scale = (part.to(KERNEL_DEVICE) for part in reference_quantise_tokens(draw(65, 160), BLOCK))
    weight = moved(weight_of("blocks", 48, 160))
    alone, together = (torch.empty(rows, 48, device=KERNEL_DEVICE) for rows in (1, 65))
    multiply_groups(data, scale, weight, together)
    multiply_groups(data[64:], scale[64:], weight, alone)
    assert torch.equal(alone[0], together[64])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("rows", "columns", "group"), [(1, 1, 128), (5, 257, 128), (3, 128, 128), (4, 200, 200)]
)
def test_numbers_that_float8_holds_are_kept_with_the_scale_of_each_group(
    rows: int, columns: int, group: int, dtype: torch.dtype
) -> None:
    """Others round otherwise in the interpreter than on a device, so only these are given to it."""
    numbers = (draw(rows, columns) * 100).clamp(-400, 400).to(FLOAT8).float()
    numbers[:, ::group] = 448.0
    x = (numbers / 64).to(dtype)
    data, scale = quantise_groups(x.to(KERNEL_DEVICE), group)
    assert torch.equal(data.float().cpu(), numbers)
    assert torch.equal(scale.cpu(), torch.full((rows, -(-columns // group)), 1 / 64))


@pytest.mark.parametrize("kind", ["channels", "blocks"])
def test_rounding_and_product_together_equal_the_definition(kind: str) -> None:
    """Of activations that float8 holds, which round alike in the interpreter and on a device."""
    x = (draw(20, 300) * 100).clamp(-400, 400).to(FLOAT8).float()
    x[:, ::BLOCK] = 448.0
    weight = weight_of(kind, 70, 300)
    found = group_product(x.to(KERNEL_DEVICE), moved(weight)).cpu()
    expected = reference_fp8_linear(x, weight)
    assert (found - expected).norm() <= 1e-3 * expected.norm()
    assert group_product(x[:0].to(KERNEL_DEVICE), moved(weight)).shape == (0, 70)


def test_a_group_of_zeros_stays_zeros() -> None:
    data, scale = quantise_groups(torch.zeros(2, 130, device=KERNEL_DEVICE), BLOCK)
    assert not data.float().any()
    assert torch.equal(scale.cpu(), torch.ones(2, 2))


@GPU
@pytest.mark.parametrize("group", [BLOCK, 2816])
def test_a_gpu_rounds_activations_as_the_definition_does(group: int) -> None:
    x = draw(300, 2816).to(torch.bfloat16)
    data, scale = quantise_groups(x.cuda(), group)
    expected = reference_quantise_tokens(x, group)
    torch.testing.assert_close(scale.cpu(), expected[1], atol=0, rtol=1e-6)
    differ = data.float().cpu() != expected[0].float()
    assert differ.float().mean() < 1e-4, "division may round a tie the other way"


@GPU
@pytest.mark.parametrize("kind", ["channels", "blocks", "rows of blocks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "out", "inner"), [(1, 4224, 2816), (256, 2816, 2112), (300, 77, 130)])
def test_linear_on_a_gpu_equals_the_definition(
    kind: str, dtype: torch.dtype, rows: int, out: int, inner: int
) -> None:
    x, weight = draw(rows, inner).to(dtype), weight_of(kind, out, inner)
    found = fp8_linear(x.cuda(), moved(weight)).float().cpu()
    expected = reference_fp8_linear(x, weight).float()
    assert (found - expected).norm() <= 5e-3 * expected.norm()


def test_float8_weights_need_no_triton_on_a_cpu() -> None:
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from easel.kernels.fp8 import quantise_blocks, fp8_linear\n"
        "found = fp8_linear(torch.ones(2, 8), quantise_blocks(torch.ones(4, 8)))\n"
        "assert found.allclose(torch.full((2, 4), 8.0))\n"
    )
    subprocess.run([sys.executable, "-P", "-c", script], check=True)


def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    script = (
        "from triton.backends.compiler import GPUTarget\n"
        "from triton.compiler import ASTSource, compile\n"
        "from easel.kernels.fp8_triton import _multiply_tile, _quantise_group, tile_shape\n"
        "def built(kernel, kinds, fixed, options):\n"
        "    signature = dict(zip(kernel.arg_names, kinds + ['constexpr'] * len(fixed), strict=True))\n"
        "    aligned = {(at,): [['tt.divisibility', 16]] for at in range(len(kinds))}\n"  # as most models are
        "    source = ASTSource(kernel, signature, fixed, aligned)\n"
        "    return compile(source, GPUTarget('cuda', 90, 32), options)\n"
        "tile = tile_shape(256)\n"
        "options = {name: tile.pop(name) for name in ('num_warps', 'num_stages')}\n"
        "kinds = ['*fp8e4nv', '*fp32', '*fp8e4nv', '*fp32', '*bf16'] + ['i32'] * 4\n"
        "found = built(_multiply_tile, kinds, dict(per_channel=False, block_rows=128, **tile), options)\n"
        "assert 'wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3' in found.asm['ptx']\n"
        "assert found.metadata.shared <= 227 * 1024\n"
        "kinds = ['*bf16', '*fp8e4nv', '*fp32', 'i32', 'fp32']\n"
        "found = built(_quantise_group, kinds, dict(group=128, width=128), {'num_warps': 1})\n"
        "assert 'cvt.rn.satfinite.e4m3x2.f32' in found.asm['ptx']\n"
    )
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-c", script], check=True, env=environment)
