"""The experts' Triton kernels, on a GPU or in Triton's interpreter, against the definition of the experts."""

import pytest
import torch
from torch import Tensor

from easel.kernels.moe import Activation, expert_mlp, gated, reference_expert_mlp
from easel.kernels.moe_matmul_triton import write_inner, write_products
from easel.kernels.moe_routes import Routes, route, weighted_sum
from easel.kernels.moe_triton import fused_experts, fused_gated, sorted_pairs, summed_products
from tests.kernels.moe_inputs import TOLERANCE, Layer, layer_of, random_index

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in the interpreter
POISON = float("nan")


@pytest.mark.parametrize(
    ("tokens", "experts", "chosen"), [(0, 3, 2), (1, 1, 1), (5, 7, 3), (400, 5, 4), (70, 33, 2)]
)
def test_pairs_are_sorted_as_torch_sorts_them(tokens: int, experts: int, chosen: int) -> None:
    index = random_index(tokens, experts, chosen).to(DEVICE)
    count = tokens * chosen
    poisoned = (torch.full((size,), -7, dtype=torch.int32, device=DEVICE) for size in (count, count, experts))
    found = sorted_pairs(index, experts, Routes(*poisoned))
    expected = route(index, experts)
    for name in Routes.__slots__:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_routes_say_where_each_pair_is_and_where_each_expert_ends() -> None:
    found = route(torch.tensor([[3, 1], [1, 3], [0, 1]]), 5)
    assert found.pair.tolist() == [4, 1, 2, 5, 0, 3]
    assert found.place.tolist() == [4, 1, 2, 5, 0, 3]
    assert found.ends.tolist() == [1, 4, 4, 6, 6]


@pytest.mark.parametrize(
    ("dtype", "activation"),
    [
        (torch.float32, Activation.SILU),
        (torch.bfloat16, Activation.GELU_TANH),
        (torch.float16, Activation.SILU),
    ],
)
@pytest.mark.parametrize(
    ("tokens", "hidden", "size", "experts", "chosen"),
    [(0, 6, 4, 3, 2), (1, 5, 3, 7, 2), (9, 70, 65, 3, 2), (20, 24, 9, 8, 2), (37, 33, 17, 2, 1)],
)
def test_experts_equal_their_reference(
    tokens: int,
    hidden: int,
    size: int,
    experts: int,
    chosen: int,
    dtype: torch.dtype,
    activation: Activation,
) -> None:
    layer = layer_of(tokens, hidden, size, experts, chosen, dtype)
    found = _fused(layer, activation)
    assert (found.shape, found.dtype) == (layer.x.shape, dtype)
    expected = reference_expert_mlp(*layer.all, activation)
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    by_expert = expert_mlp(*layer.all, activation)
    torch.testing.assert_close(found, by_expert, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_every_stage_writes_all_of_its_output_and_nothing_besides() -> None:
    layer = layer_of(21, 34, 37, 3, 2, torch.float32).on(DEVICE)
    routes = route(layer.index, 3)
    inner, products, out = (torch.full((42 + 2, width), POISON, device=DEVICE) for width in (37, 34, 34))
    write_inner(layer.x, routes, layer.gate_up, None, Activation.SILU, inner[1:-1])
    write_products(inner[1:-1], routes, layer.down, None, products[1:-1])
    summed_products(products[1:-1], routes, layer.weight, out[1:22])
    for room in (inner, products):
        assert room[1:-1].isfinite().all()
        assert room[[0, -1]].isnan().all()
    assert out[1:22].isfinite().all()
    assert out[[0, 22]].isnan().all()


def test_products_are_summed_as_torch_sums_them() -> None:
    """To the last bit, were it not for products and sums that are fused."""
    layer = layer_of(9, 70, 1, 12, 5, torch.float32).on(DEVICE)
    routes, products = route(layer.index, 12), torch.randn(45, 70, device=DEVICE)
    found = summed_products(products, routes, layer.weight)
    torch.testing.assert_close(found, weighted_sum(products, routes, layer.weight), atol=1e-6, rtol=1e-6)


def test_all_tokens_may_go_to_one_expert_and_experts_without_tokens_are_not_read() -> None:
    layer = layer_of(35, 20, 18, 4, 1, torch.float32)
    layer.index.fill_(2)
    others = torch.tensor([0, 1, 3])
    expected = reference_expert_mlp(*layer.all, Activation.SILU)
    layer.gate_up[others], layer.down[others] = POISON, POISON
    torch.testing.assert_close(_fused(layer, Activation.SILU), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_token_gets_the_same_bits_alone_as_in_a_batch(dtype: torch.dtype) -> None:
    layer = layer_of(29, 40, 20, 4, 2, dtype)
    together = _fused(layer, Activation.GELU_TANH)
    for row in (0, 28):
        alone = _fused(layer.only(row), Activation.GELU_TANH)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("listed", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_a_tokens_experts_are_summed_by_ascending_number(listed: list[int]) -> None:
    """Experts that give 1e8, 1 and -1e8: in float32 their sum is 0 in ascending order, 1 in others."""
    routes = route(torch.tensor([listed], device=DEVICE), 3)
    products = torch.tensor([[1e8], [1.0], [-1e8]], device=DEVICE)
    assert summed_products(products, routes, torch.ones(1, 3, device=DEVICE)).item() == 0.0


@pytest.mark.parametrize("name", ["x", "index", "weight", "gate_up", "down"])
@pytest.mark.parametrize("wrong", ["strides", "dtype"])
def test_tensors_that_do_not_go_together_are_refused(name: str, wrong: str) -> None:
    layer = layer_of(4, 8, 6, 3, 2, torch.float32)
    tensor: Tensor = getattr(layer, name)
    changed = tensor.mT.contiguous().mT if wrong == "strides" else tensor.double()
    with pytest.raises(ValueError, match="strides" if wrong == "strides" else "dtypes"):
        _fused(layer.but(name, changed), Activation.SILU)


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "size"), [(0, 3), (1, 1), (7, 33), (3, 1030)])
def test_gating_in_one_launch_equals_torchs(
    rows: int, size: int, dtype: torch.dtype, activation: Activation
) -> None:
    both = torch.randn(rows, 2 * size, generator=torch.Generator().manual_seed(size)) * 4
    out = torch.full((rows + 2, size), POISON, dtype=dtype, device=DEVICE)
    fused_gated(both.to(DEVICE, dtype), activation, out[1:-1])
    expected = gated(both.to(dtype).float(), activation).to(dtype)
    torch.testing.assert_close(out[1:-1].cpu(), expected)
    assert out[[0, -1]].isnan().all()


@pytest.mark.parametrize("activation", list(Activation))
def test_gates_far_from_zero_stay_finite(activation: Activation) -> None:
    both = torch.tensor([[-1e4, -90.0, 0.0, 90.0, 1e4, 1.0, 1.0, 1.0, 1.0, 1.0]], device=DEVICE)
    assert fused_gated(both, activation)[0].tolist() == pytest.approx([0.0, 0.0, 0.0, 90.0, 1e4], abs=1e-30)


def _fused(layer: Layer, activation: Activation) -> Tensor:
    x, index, weight, gate_up, down = (tensor.to(DEVICE) for tensor in layer.all)
    return fused_experts(x, index, weight, gate_up, down, activation, None).cpu()
