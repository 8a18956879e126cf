"""The experts as a step that is recorded has them: no operation's shape depends on a value."""

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from easel.kernels import moe
from easel.kernels.moe import (
    Activation,
    expert_mlp,
    expert_mlp_static,
    grouped_sigmoid_router,
    reference_expert_mlp,
    softmax_router,
)
from tests.kernels.moe_inputs import TOLERANCE, layer_of

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "item",
    "bincount",
    "masked_select",
    "unique",
    "_unique2",
    "is_nonzero",
}


class Recorder(TorchDispatchMode):
    """Which operations are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        self.names.add(str(func).split(".")[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("tokens", "hidden", "size", "experts", "chosen"),
    [(0, 6, 4, 3, 2), (1, 5, 3, 7, 2), (13, 40, 35, 4, 4), (40, 24, 9, 16, 3), (37, 32, 16, 2, 1)],
)
def test_the_result_is_that_of_one_expert_after_another(
    tokens: int,
    hidden: int,
    size: int,
    experts: int,
    chosen: int,
    dtype: torch.dtype,
    activation: Activation,
) -> None:
    layer = layer_of(tokens, hidden, size, experts, chosen, dtype)
    found = expert_mlp_static(*layer.all, activation)
    assert (found.shape, found.dtype) == (layer.x.shape, dtype)
    for expected in (expert_mlp(*layer.all, activation), reference_expert_mlp(*layer.all, activation)):
        torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_nothing_is_asked_for_that_only_the_values_tell() -> None:
    assert not _called(expert_mlp_static) & WAITING


def test_the_path_of_many_tokens_on_a_cpu_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _called(expert_mlp) & WAITING
    monkeypatch.setattr(moe, "GROUPED_ON_CPU", 0)
    assert _called(expert_mlp) & WAITING


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_routers_ask_for_nothing_either(dtype: torch.dtype) -> None:
    logits = torch.randn(5, 8).to(dtype)
    with Recorder() as recorder:
        softmax_router(logits, 2, True)
        grouped_sigmoid_router(logits, torch.zeros(8), 3, 4, 2, 2.5)
    assert "topk" in recorder.names
    assert not recorder.names & WAITING


def test_experts_without_tokens_do_not_matter_whatever_they_hold() -> None:
    layer = layer_of(9, 16, 8, 4, 2, torch.float32)
    layer.index.copy_(torch.tensor([1, 3]).expand(9, 2))
    expected = expert_mlp_static(*layer.all, Activation.SILU)
    layer.gate_up[[0, 2]], layer.down[[0, 2]] = float("nan"), float("inf")
    assert torch.equal(expert_mlp_static(*layer.all, Activation.SILU), expected)


def _called(run: Callable[..., Tensor]) -> set[str]:
    layer = layer_of(9, 16, 8, 4, 2, torch.float32)
    with Recorder() as recorder:
        run(*layer.all, Activation.SILU)
    return recorder.names
