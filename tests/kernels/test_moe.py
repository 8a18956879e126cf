"""Routers and experts against their definitions, and what batches may not change."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from easel.kernels.moe import (
    Activation,
    expert_mlp,
    gated,
    grouped_sigmoid_router,
    reference_expert_mlp,
    reference_grouped_sigmoid_router,
    reference_softmax_router,
    softmax_router,
)

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}


def _randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _routes(tokens: int, experts: int, chosen: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return softmax_router(_randn(tokens, experts, seed=seed), chosen, True)


@pytest.mark.parametrize(("tokens", "experts", "chosen"), [(0, 4, 2), (1, 1, 1), (7, 5, 3), (33, 128, 8)])
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_router_equals_its_reference(
    tokens: int, experts: int, chosen: int, renormalise: bool, dtype: torch.dtype
) -> None:
    logits = _distinct(tokens, experts).to(dtype)
    index, weight = softmax_router(logits, chosen, renormalise)
    expected_index, expected_weight = reference_softmax_router(logits, chosen, renormalise)
    assert torch.equal(index, expected_index)
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, expected_weight)


@pytest.mark.parametrize(
    ("tokens", "experts", "chosen", "groups", "kept"),
    [
        (0, 8, 2, 4, 2),
        (1, 4, 1, 4, 2),
        (9, 6, 2, 3, 1),
        (17, 12, 5, 4, 3),
        (11, 256, 8, 8, 4),
        (5, 7, 3, 1, 1),
    ],
)
def test_grouped_sigmoid_router_equals_its_reference(
    tokens: int, experts: int, chosen: int, groups: int, kept: int
) -> None:
    logits, bias = _distinct(tokens, experts), _randn(experts, seed=5)
    index, weight = grouped_sigmoid_router(logits, bias, chosen, groups, kept, 2.5)
    expected_index, expected_weight = reference_grouped_sigmoid_router(
        logits, bias, chosen, groups, kept, 2.5
    )
    assert torch.equal(index, expected_index)
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, expected_weight)


def test_the_bias_decides_which_experts_are_chosen_but_not_their_weights() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    index, weight = grouped_sigmoid_router(logits, torch.tensor([0.0, 0.0, 5.0, 5.0]), 2, 1, 1, 1.0)
    affinity = logits[0, 2:].sigmoid()
    assert index.tolist() == [[2, 3]]
    torch.testing.assert_close(weight[0], affinity / affinity.sum())


def test_an_expert_outside_the_best_groups_is_not_chosen_however_good_it_is() -> None:
    """The second group's best two outweigh the first's one outstanding expert."""
    logits = torch.tensor([[9.0, -9.0, 1.0, 1.5]])
    index, _ = grouped_sigmoid_router(logits, torch.zeros(4), 2, 2, 1, 1.0)
    assert sorted(index[0].tolist()) == [2, 3]


def test_experts_that_do_not_divide_into_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="5 experts do not divide into 2 groups"):
        grouped_sigmoid_router(torch.zeros(1, 5), torch.zeros(5), 1, 2, 1, 1.0)


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "hidden", "size", "experts", "chosen"),
    [(0, 6, 4, 3, 2), (1, 5, 3, 7, 2), (13, 8, 11, 4, 4), (40, 24, 9, 16, 3), (3, 6, 5, 64, 1)],
)
def test_expert_mlp_equals_its_reference(
    tokens: int,
    hidden: int,
    size: int,
    experts: int,
    chosen: int,
    dtype: torch.dtype,
    activation: Activation,
) -> None:
    x = _randn(tokens, hidden, seed=1, dtype=dtype)
    gate_up = _randn(experts, 2 * size, hidden, seed=2, dtype=dtype) * hidden**-0.5
    down = _randn(experts, hidden, size, seed=3, dtype=dtype) * size**-0.5
    index, weight = _routes(tokens, experts, chosen)
    found = expert_mlp(x, index, weight, gate_up, down, activation)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    expected = reference_expert_mlp(x, index, weight, gate_up, down, activation)
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_experts_without_tokens_are_not_read() -> None:
    """Their weights are not finite: a product with them would show."""
    gate_up, down = _randn(5, 6, 4), _randn(5, 4, 3)
    index = torch.tensor([[1, 3], [3, 1], [1, 3]])
    used = torch.tensor([1, 3])
    weight = torch.full((3, 2), 0.5)
    x = _randn(3, 4)
    poisoned = torch.full_like(gate_up, float("nan")), torch.full_like(down, float("nan"))
    for tensor, source in zip(poisoned, (gate_up, down), strict=True):
        tensor[used] = source[used]
    found = expert_mlp(x, index, weight, *poisoned, Activation.SILU)
    assert torch.equal(found, expert_mlp(x, index, weight, gate_up, down, Activation.SILU))
    assert found.isfinite().all()


def test_a_token_alone_gets_what_it_gets_in_a_batch() -> None:
    x, gate_up, down = _randn(29, 12), _randn(6, 14, 12), _randn(6, 12, 7)
    index, weight = _routes(29, 6, 3)
    together = expert_mlp(x, index, weight, gate_up, down, Activation.SILU)
    for row in range(29):
        one = slice(row, row + 1)
        alone = expert_mlp(x[one], index[one], weight[one], gate_up, down, Activation.SILU)
        torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("listed", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_a_tokens_experts_are_summed_in_one_order_whatever_the_list_and_the_batch(listed: list[int]) -> None:
    """Experts that give 1e8, 1 and -1e8: in float32 their sum is 0 in ascending order, 1 in others."""
    down = torch.tensor([1e8, 1.0, -1e8]).view(3, 1, 1)
    gate_up = torch.full((3, 2, 1), 1.0)
    gate = float(torch.nn.functional.silu(torch.tensor(1.0)))
    index = torch.tensor([listed, [1, 2, 0], [2, 0, 1]])
    weight = torch.full((3, 3), 1 / gate)
    x = torch.ones(3, 1)
    alone = expert_mlp(x[:1], index[:1], weight[:1], gate_up, down, Activation.SILU)
    assert expert_mlp(x, index, weight, gate_up, down, Activation.SILU).unique().tolist() == [float(alone)]
    assert float(alone) == 0.0


def test_the_gate_comes_first() -> None:
    both = torch.tensor([[-100.0, 2.0, 3.0, 5.0]])
    for activation in Activation:
        torch.testing.assert_close(gated(both, activation), torch.tensor([[0.0, 5.0 * _at(2.0, activation)]]))


def _at(value: float, activation: Activation) -> float:
    functions: dict[Activation, Callable[[Tensor], Tensor]] = {
        Activation.SILU: torch.nn.functional.silu,
        Activation.GELU_TANH: lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    }
    return float(functions[activation](torch.tensor(value)))


def test_shapes_that_do_not_fit_are_named() -> None:
    index, weight = _routes(2, 3, 2)
    with pytest.raises(ValueError, match=r"shapes \(2, 5\), \(2, 2\), \(2, 2\), \(3, 4, 6\), \(3, 6, 2\)"):
        expert_mlp(_randn(2, 5), index, weight, _randn(3, 4, 6), _randn(3, 6, 2), Activation.SILU)


def _distinct(tokens: int, experts: int) -> Tensor:
    """Logits that no two experts of a token share, in bfloat16 either."""
    draw = torch.Generator().manual_seed(experts)
    order = [torch.randperm(experts, generator=draw) for _ in range(tokens)]
    ranks = torch.stack(order) if order else torch.empty(0, experts)
    return ranks.float() / 32 - 1
