"""Kernels at DiffusionGemma-26B-A4B's sizes as a Hopper GPU would run them."""

from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from easel.kernels.moe_matmul_triton import tile_shape
from easel.kernels.norm_rope_triton import ELEMENTS
from tests.kernels.gpu_build import Built, Kernel, built_for_sm90

SHARED = 227 * 1024  # bytes of a multiprocessor
REGISTERS = 64 * 1024
HIDDEN, INNER, EXPERTS, CHOSEN = 2816, 704, 128, 8
PLAIN, GEMMA = 32, 18  # heads that are given: of queries, keys and values; of queries and keys
ROUTES = {"pair": "*i32", "place": "*i32", "ends": "*i32"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Built]:
    """All of them in one process."""
    products = [_product(name, stored) for name in ("_inner", "_products") for stored in ("bf16", "fp8e4nv")]
    kernels = [*products, *_around_products(), *_routers(), _norms(), _heads(PLAIN), _heads(GEMMA)]
    found = built_for_sm90(kernels, tmp_path_factory.mktemp("triton"))
    assert [kernel.name for kernel in found] == [kernel.name for kernel in kernels]
    return found


def test_no_register_is_spilled(built: list[Built]) -> None:
    assert {kernel.name: kernel.spilled for kernel in built if kernel.spilled} == {}


def test_products_use_tensor_cores_and_two_programs_fit_a_multiprocessor(built: list[Built]) -> None:
    products = [kernel for kernel in built if kernel.name in {"_inner", "_products"}]
    assert len(products) == 4
    for kernel in products:
        assert kernel.tensor_cores
        assert 2 * kernel.shared <= SHARED
        assert 2 * 128 * kernel.registers <= REGISTERS


def _product(name: str, stored: str) -> Kernel:
    """With the launch's own tile; float8 with factors of blocks."""
    float8, inner = stored != "bf16", name == "_inner"
    x, weight = Mock(spec=Tensor), Mock(spec=Tensor)
    x.is_cuda, x.dtype = True, torch.bfloat16
    weight.element_size.return_value = 1 if float8 else 2
    tile = tile_shape(x, weight, halves=2 if inner else 1)
    kinds = ROUTES | {"x": "*bf16", "inner": "*bf16", "out": "*bf16", "weight": f"*{stored}"}
    fixed: dict[str, int | bool | None] = {
        "hidden": HIDDEN,
        "size": INNER,
        "block_rows": 128 if float8 else 0,
        "groups": -(-(HIDDEN if inner else INNER) // 128) if float8 else 0,
        "experts": EXPERTS,
        "padded": EXPERTS,
        "rows": tile.rows,
        "columns": tile.columns,
        "depth": tile.depth,
        "widen": False,
    }
    fixed |= {"chosen": CHOSEN, "gelu": True} if inner else {}
    if float8:
        kinds["scale"] = "*fp32"
    else:
        fixed["scale"] = None
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    return Kernel("easel.kernels.moe_matmul_triton", name, kinds, fixed, options)


def _around_products() -> list[Kernel]:
    module = "easel.kernels.moe_triton"
    sums = ROUTES | {"products": "*bf16", "weight": "*fp32", "out": "*bf16", "row_stride": "i32"}
    gates = {"gate_up": "*bf16", "out": "*bf16"}
    return [
        Kernel(module, "_sort", ROUTES | {"index": "*i64", "pairs": "i32"}, {"block": 1024}),
        Kernel(module, "_sum", sums, {"width": HIDDEN, "chosen": CHOSEN, "padded": CHOSEN, "block": 1024}),
        Kernel(module, "_gate", gates, {"width": 2112, "gelu": True, "block": 1024}),
    ]


def _routers() -> list[Kernel]:
    """That of DiffusionGemma, and that of LLaDA2."""
    module = "easel.kernels.moe_router_triton"
    kinds = {"logits": "*bf16", "bias": "*fp32", "index": "*i64", "weight": "*fp32", "scale": "fp32"}
    best: dict[str, int | bool | None] = {"chosen": CHOSEN, "wide": CHOSEN}
    plain = {"experts": EXPERTS, "padded": EXPERTS, "renormalise": True}
    groups = {"groups": 8, "size": 32, "padded_groups": 8, "padded": 32, "flat": 256, "groups_chosen": 4}
    one_warp = {"num_warps": 1}
    return [
        Kernel(module, "_softmax", kinds, best | plain, one_warp),
        Kernel(module, "_grouped_sigmoid", kinds, best | groups, one_warp),
    ]


def _norms() -> Kernel:
    names = ("x", "added", "added_weight", "weights", "total", "normed")
    kinds = dict.fromkeys(map(str, names), "*bf16") | {"rows": "i32", "eps": "fp32"}
    fixed = {"width": HIDDEN, "padded": 4096, "norms": 3, "once": True}
    return Kernel("easel.kernels.norm_triton", "_add_norms", kinds, fixed, {"num_warps": 8})


def _heads(given: int) -> Kernel:
    names = ("projected", "weight", "cos", "sin", "out", "key_store", "value_store")
    kinds = dict.fromkeys(map(str, names), "*bf16") | {"slots": "*i64", "eps": "fp32"}
    queries, gemma = 16, given == GEMMA
    keys, dim = (2, 512) if gemma else (8, 128)
    fixed = {
        "given": given,
        "queries": queries,
        "keys": keys,
        "made": queries + (2 * keys if gemma else keys),
        "dim": dim,
        "turned": dim,
        "once": gemma,
        "scale_values": gemma,
        "padded": dim,
        "block": ELEMENTS // dim,
    }
    return Kernel("easel.kernels.norm_rope_triton", "_heads", kinds, fixed)
