"""On a GPU the public functions take Triton or grouped_mm; here Triton's interpreter stands in for one."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from easel.kernels import moe_router_triton, moe_triton, norm_rope_triton, norm_triton
from easel.kernels.moe import (
    Activation,
    expert_mlp,
    gated,
    grouped_sigmoid_router,
    reference_expert_mlp,
    softmax_router,
    suits_grouped_mm,
)
from easel.kernels.norm import add_norms, rms_norm
from easel.kernels.norm_rope import HeadRules, qknorm_rope_kvwrite
from tests.kernels.moe_inputs import Layer, layer_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FUSED = {
    moe_triton: ("fused_experts", "sorted_pairs", "summed_products", "fused_gated"),
    moe_router_triton: ("fused_softmax_router", "fused_grouped_sigmoid_router"),
    norm_triton: ("fused_add_norms", "fused_rms_norm"),
    norm_rope_triton: ("fused_heads",),
}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is called of the Triton modules, from where a GPU is believed to be there."""
    names: list[str] = []

    def watched(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **kwargs: object) -> object:
            names.append(name)
            return function(*args, **kwargs)

        return run

    def believed(tensor: Tensor) -> bool:
        return True

    for module in ("moe", "moe_router", "norm", "norm_rope"):
        monkeypatch.setattr(f"easel.kernels.{module}.has_triton", believed)
    for module, functions in FUSED.items():
        for name in functions:
            monkeypatch.setattr(module, name, watched(name, vars(module)[name]))
    return names


@pytest.fixture
def layer() -> Layer:
    return layer_of(11, 24, 18, 4, 2, torch.float32)


def test_few_tokens_an_expert_take_the_fused_kernels(layer: Layer, called: list[str]) -> None:
    found = expert_mlp(*layer.on(DEVICE).all, Activation.SILU)
    assert called[0] == "fused_experts"
    expected = reference_expert_mlp(*layer.all, Activation.SILU)
    torch.testing.assert_close(found.cpu(), expected, atol=2e-5, rtol=2e-5)


def test_many_tokens_an_expert_take_grouped_mm_between_sorting_and_the_sum(
    layer: Layer, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def suits(*_: object) -> bool:
        return True

    monkeypatch.setattr("easel.kernels.moe.suits_grouped_mm", suits)
    found = expert_mlp(*layer.on(DEVICE).all, Activation.SILU)
    assert called == ["sorted_pairs", "fused_gated", "summed_products"]
    expected = reference_expert_mlp(*layer.all, Activation.SILU)
    torch.testing.assert_close(found.cpu(), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("major", "dtype", "size", "pairs", "suits"),
    [
        (9, torch.bfloat16, 16, 512, True),
        (10, torch.bfloat16, 16, 512, True),
        (8, torch.bfloat16, 16, 512, False),
        (9, torch.float16, 16, 512, False),
        (9, torch.bfloat16, 12, 512, False),
        (9, torch.bfloat16, 16, 511, False),
    ],
)
def test_grouped_mm_is_taken_only_where_it_is_one_kernel_and_tokens_are_many(
    major: int, dtype: torch.dtype, size: int, pairs: int, suits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capability(_: object) -> tuple[int, int]:
        return major, 0

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    layer = layer_of(2, 16, size, 4, 1, dtype)
    assert suits_grouped_mm(layer.x, pairs, layer.gate_up, layer.down) == suits


def test_gates_routers_and_norms_take_one_kernel_each(layer: Layer, called: list[str]) -> None:
    x = layer.x.to(DEVICE)
    logits = x[:, :8].contiguous()
    gated(x, Activation.SILU)
    softmax_router(logits, 2, True)
    grouped_sigmoid_router(logits, logits[0], 2, 2, 1, 1.0)
    add_norms(x, x, x[:1], 1e-6)
    rms_norm(x, x[0], 1e-6)
    one, store = x[:1, :6].reshape(1, 3, 2), torch.zeros(4, 1, 2, device=DEVICE)
    angles, slots = (one[:, :1].contiguous(), one[:, :1].contiguous()), torch.tensor([2], device=DEVICE)
    qknorm_rope_kvwrite(one.contiguous(), None, angles, HeadRules(1, 1, 1e-6), slots, (store, store))
    assert called == [
        "fused_gated",
        "fused_softmax_router",
        "fused_grouped_sigmoid_router",
        "fused_add_norms",
        "fused_rms_norm",
        "fused_heads",
    ]


def test_gates_that_are_not_dense_rows_are_left_to_torch(layer: Layer, called: list[str]) -> None:
    gated(layer.x[:, :10], Activation.SILU)
    gated(layer.x[None], Activation.SILU)
    assert called == []


def test_a_cpu_needs_no_triton() -> None:
    script = """
import sys
sys.modules["triton"] = None
import torch
from easel.kernels.moe import Activation, expert_mlp, expert_mlp_static
from easel.kernels.norm_rope import HeadRules, qknorm_rope_kvwrite
one, heads, store = torch.ones(1, 1), torch.ones(1, 3, 2), torch.zeros(4, 1, 2)
given = torch.ones(1, 4), one.long(), one, torch.ones(2, 8, 4), torch.ones(2, 4, 4), Activation.SILU
assert expert_mlp(*given).allclose(expert_mlp_static(*given))
angles, rules = (torch.ones(1, 1, 2), torch.zeros(1, 1, 2)), HeadRules(1, 1, 1e-6)
qknorm_rope_kvwrite(heads, None, angles, rules, torch.tensor([2]), (store, store))
assert store[2].tolist() == [[1.0, 1.0]]
"""
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", script], check=True, timeout=60)
