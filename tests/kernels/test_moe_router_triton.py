"""The routers' kernels, on a GPU or in Triton's interpreter, against the definitions of the routers."""

import pytest
import torch
from torch import Tensor

from easel.kernels.moe import reference_grouped_sigmoid_router, reference_softmax_router
from easel.kernels.moe_router_triton import fused_grouped_sigmoid_router, fused_softmax_router

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in the interpreter


@pytest.mark.parametrize(("tokens", "experts", "chosen"), [(0, 4, 2), (1, 1, 1), (7, 5, 3), (5, 128, 8)])
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_softmax_router_equals_its_reference(
    tokens: int, experts: int, chosen: int, renormalise: bool, dtype: torch.dtype
) -> None:
    logits = _distinct(tokens, experts).to(dtype)
    out = _poisoned(tokens, chosen)
    fused_softmax_router(logits.to(DEVICE), chosen, renormalise, out)
    _compare(out, reference_softmax_router(logits, chosen, renormalise))


@pytest.mark.parametrize(
    ("tokens", "experts", "chosen", "groups", "kept"),
    [(0, 8, 2, 4, 2), (1, 4, 1, 4, 2), (9, 6, 2, 3, 1), (7, 12, 5, 4, 3), (4, 256, 8, 8, 4), (5, 7, 3, 1, 1)],
)
def test_the_grouped_router_equals_its_reference(
    tokens: int, experts: int, chosen: int, groups: int, kept: int
) -> None:
    logits = _distinct(tokens, experts)
    bias = torch.randn(experts, generator=torch.Generator().manual_seed(5))
    options = chosen, groups, kept, 2.5
    out = _poisoned(tokens, chosen)
    fused_grouped_sigmoid_router(logits.to(DEVICE), bias.to(DEVICE), *options, out)
    _compare(out, reference_grouped_sigmoid_router(logits, bias, *options))


def test_of_equal_experts_the_first_are_chosen_and_none_twice() -> None:
    index, weight = fused_softmax_router(torch.zeros(2, 6, device=DEVICE), 4, False)
    assert index.tolist() == [[0, 1, 2, 3]] * 2
    torch.testing.assert_close(weight.cpu(), torch.full((2, 4), 1 / 6))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_experts_stay_within_bounds_where_logits_are_not_numbers() -> None:
    logits = torch.full((1, 5), float("nan"), device=DEVICE)
    index, _ = fused_softmax_router(logits, 3, True)
    assert set(index[0].tolist()) <= set(range(5))
    index, _ = fused_grouped_sigmoid_router(logits, torch.zeros(5, device=DEVICE), 3, 1, 1, 1.0)
    assert set(index[0].tolist()) <= set(range(5))


def _poisoned(tokens: int, chosen: int) -> tuple[Tensor, Tensor]:
    index = torch.full((tokens, chosen), -7, device=DEVICE)
    return index, torch.full((tokens, chosen), float("nan"), device=DEVICE)


def _compare(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(found[0].cpu(), expected[0])
    torch.testing.assert_close(found[1].cpu(), expected[1])


def _distinct(tokens: int, experts: int) -> Tensor:
    """Logits that no two experts of a token share, in bfloat16 either."""
    draw = torch.Generator().manual_seed(experts)
    order = [torch.randperm(experts, generator=draw) for _ in range(tokens)]
    ranks = torch.stack(order) if order else torch.empty(0, experts)
    return ranks.float() / 32 - 1
