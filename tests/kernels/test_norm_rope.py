"""From a projection to queries, keys and values: the torch path and the kernel against the definition."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from easel.kernels.norm_rope import HeadRules, qknorm_rope_kvwrite, reference_qknorm_rope
from easel.kernels.norm_rope_triton import fused_heads
from easel.kernels.rope import inverse_frequencies, rotary_angles

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in the interpreter
POISON = float("nan")
STORED = 40  # tokens of a store
PLAIN = HeadRules(heads=4, kv_heads=2, eps=1e-6)
GEMMA = HeadRules(heads=3, kv_heads=1, eps=1e-6, round_once=True, scale_values=True)
EITHER = pytest.mark.parametrize("rules", [PLAIN, GEMMA], ids=["plain", "gemma"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
# What is rounded at the same places differs by one step at most, where sums differ in their last bits.
STEPS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@dataclass(frozen=True, slots=True)
class Problem:
    rules: HeadRules
    projected: Tensor  # [n, heads + 2 kv_heads or heads + kv_heads, d]
    weight: Tensor | None  # [heads + kv_heads, d]
    angles: tuple[Tensor, Tensor]  # [n, 1, r] each
    slots: Tensor  # [n]  int64

    def stores(self) -> tuple[Tensor, Tensor]:
        shape = STORED, self.rules.kv_heads, self.projected.shape[2]
        return self.projected.new_full(shape, POISON), self.projected.new_full(shape, POISON)

    def reference(self) -> tuple[Tensor, Tensor, Tensor]:
        return reference_qknorm_rope(self.projected, self.weight, self.angles, self.rules)

    def run(self, stores: tuple[Tensor, Tensor], *, fused: bool) -> tuple[Tensor, Tensor, Tensor]:
        run = fused_heads if fused else qknorm_rope_kvwrite
        return run(self.projected, self.weight, self.angles, self.rules, self.slots, stores)


@DTYPES
@pytest.mark.parametrize("fused", [False, True], ids=["torch", "triton"])
@EITHER
@pytest.mark.parametrize(
    ("tokens", "dim", "turned", "normed", "shared"),
    [
        (0, 8, 8, True, False),
        (1, 2, 2, True, False),
        (7, 6, 4, True, True),
        (5, 16, 16, False, False),
        (3, 24, 10, False, True),
        (2, 160, 160, True, False),
    ],
)
def test_queries_keys_and_values_equal_the_reference(
    tokens: int,
    dim: int,
    turned: int,
    normed: bool,
    shared: bool,
    rules: HeadRules,
    fused: bool,
    dtype: torch.dtype,
) -> None:
    problem = problem_of(rules, tokens, dim, turned, dtype, normed=normed, shared=shared)
    found = problem.run(problem.stores(), fused=fused)
    for tensor, expected in zip(found, problem.reference(), strict=True):
        assert (tensor.shape, tensor.dtype) == (expected.shape, dtype)
        assert tensor.stride()[1:] == (dim, 1)
        torch.testing.assert_close(tensor, expected, atol=STEPS[dtype], rtol=STEPS[dtype])


@pytest.mark.parametrize("fused", [False, True], ids=["torch", "triton"])
@EITHER
@pytest.mark.parametrize("shared", [False, True], ids=["own-values", "values-are-keys"])
def test_the_store_holds_what_is_returned_where_slots_say_and_nothing_else(
    rules: HeadRules, fused: bool, shared: bool
) -> None:
    problem = problem_of(rules, 9, 10, 6, torch.float32, normed=True, shared=shared)
    stores = problem.stores()
    _, *fresh = problem.run(stores, fused=fused)
    kept = problem.slots >= 0
    assert 0 < kept.sum() < 9
    untouched = torch.ones(STORED, dtype=torch.bool, device=DEVICE)
    untouched[problem.slots[kept]] = False
    for store, new in zip(stores, fresh, strict=True):
        assert torch.equal(store[problem.slots[kept]], new[kept])
        assert store[untouched].isnan().all()


def test_slots_may_be_said_as_pairs_which_spares_looking_for_them() -> None:
    problem = problem_of(PLAIN, 6, 8, 8, torch.float32)
    by_slots, by_pairs = problem.stores(), problem.stores()
    problem.run(by_slots, fused=False)
    tokens = (problem.slots >= 0).nonzero().squeeze(-1)
    qknorm_rope_kvwrite(
        problem.projected,
        problem.weight,
        problem.angles,
        problem.rules,
        problem.slots,
        by_pairs,
        (tokens, problem.slots[tokens]),
    )
    for one, other in zip(by_slots, by_pairs, strict=True):
        assert torch.equal(one.nan_to_num(9.0), other.nan_to_num(9.0))


@EITHER
def test_the_kernel_rounds_where_the_torch_path_rounds(rules: HeadRules) -> None:
    """All but a few numbers are the same to the last bit; bfloat16 is cut off by the interpreter."""
    problem = problem_of(rules, 16, 32, 32, torch.float16)
    both = [problem.run(problem.stores(), fused=fused) for fused in (True, False)]
    for found, expected in zip(*both, strict=True):
        assert float((found == expected).float().mean()) > 0.98


def test_every_element_is_written_and_none_besides() -> None:
    problem = problem_of(GEMMA, 5, 24, 24, torch.float32)
    room = torch.full((7, 5, 24), POISON, device=DEVICE)
    fused_heads(
        problem.projected,
        problem.weight,
        problem.angles,
        problem.rules,
        problem.slots,
        problem.stores(),
        room[1:-1],
    )
    assert room[1:-1].isfinite().all()
    assert room[[0, -1]].isnan().all()


def test_many_heads_are_taken_by_more_than_one_program() -> None:
    rules = HeadRules(heads=11, kv_heads=3, eps=1e-6)
    problem = problem_of(rules, 2, 512, 512, torch.float32)
    for found, expected in zip(problem.run(problem.stores(), fused=True), problem.reference(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["torch", "triton"])
def test_angles_of_another_shape_are_refused(fused: bool) -> None:
    problem = problem_of(PLAIN, 3, 8, 8, torch.float32)
    narrow = problem.angles[0][..., :3], problem.angles[1][..., :3]
    with pytest.raises(ValueError, match=r"needs angles \[tokens, 1, r\]"):
        replace(problem, angles=narrow).run(problem.stores(), fused=fused)


def test_heads_that_are_not_the_rules_are_refused() -> None:
    problem = problem_of(PLAIN, 3, 8, 8, torch.float32)
    with pytest.raises(ValueError, match=r"4 \+ 2 heads cannot be those of projected \(3, 5, 8\)"):
        replace(problem, projected=problem.projected[:, :5]).run(problem.stores(), fused=False)


@pytest.mark.parametrize("name", ["weight", "slots"])
def test_the_kernel_refuses_tensors_of_other_shapes(name: str) -> None:
    problem = problem_of(PLAIN, 3, 8, 8, torch.float32)
    tensor: Tensor = getattr(problem, name)
    with pytest.raises(ValueError, match=f"'{name}': "):
        replace(problem, **{name: tensor[1:]}).run(problem.stores(), fused=True)


def test_strided_tensors_are_refused_by_the_kernel() -> None:
    problem = problem_of(PLAIN, 3, 8, 8, torch.float32)
    strided = problem.projected.mT.contiguous().mT
    with pytest.raises(ValueError, match="dense tensors of one dtype"):
        replace(problem, projected=strided).run(problem.stores(), fused=True)


def problem_of(
    rules: HeadRules,
    tokens: int,
    dim: int,
    turned: int,
    dtype: torch.dtype,
    *,
    normed: bool = True,
    shared: bool = False,
) -> Problem:
    draw = torch.Generator().manual_seed(tokens + dim)
    given = rules.turned + (0 if shared else rules.kv_heads)
    positions = torch.arange(tokens, device=DEVICE) * 3
    slots = torch.randperm(STORED, generator=draw)[:tokens]
    slots[::3] = -1
    weight = torch.randn(rules.turned, dim, generator=draw).to(DEVICE, dtype) if normed else None
    frequencies = inverse_frequencies(turned, 1e4).to(DEVICE)
    return Problem(
        rules=rules,
        projected=(torch.randn(tokens, given, dim, generator=draw) * 3).to(DEVICE, dtype),
        weight=weight,
        angles=rotary_angles(positions, frequencies, dtype),
        slots=slots.to(DEVICE),
    )
