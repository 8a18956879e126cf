# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""Both routers in one Triton launch each, a token a program; of equal experts the first is chosen."""

import torch
import triton
import triton.language as tl
from torch import Tensor

Routed = tuple[Tensor, Tensor]


def fused_softmax_router(logits: Tensor, chosen: int, renormalise: bool, out: Routed | None = None) -> Routed:
    """`moe_router.softmax_router`; logits [n, E] dense."""
    index, weight = _results(logits, chosen) if out is None else out
    tokens, experts = logits.shape
    if tokens:
        _softmax[(tokens,)](
            *(logits, index, weight),
            experts=experts,
            padded=triton.next_power_of_2(experts),
            chosen=chosen,
            wide=triton.next_power_of_2(chosen),
            renormalise=renormalise,
            num_warps=1,
            enable_fp_fusion=True,  # also what is chosen by default; triton 3.9 warns where it is not said
        )
    return index, weight


def fused_grouped_sigmoid_router(
    logits: Tensor,
    bias: Tensor,
    chosen: int,
    groups: int,
    groups_chosen: int,
    scale: float,
    out: Routed | None = None,
) -> Routed:
    """`moe_router.grouped_sigmoid_router`; logits [n, E] and bias [E] dense."""
    index, weight = _results(logits, chosen) if out is None else out
    tokens, experts = logits.shape
    padded = triton.next_power_of_2(experts // groups)
    if tokens:
        _grouped_sigmoid[(tokens,)](
            *(logits, bias, index, weight, scale),
            groups=groups,
            size=experts // groups,
            padded_groups=triton.next_power_of_2(groups),
            padded=padded,
            flat=triton.next_power_of_2(groups) * padded,
            groups_chosen=groups_chosen,
            chosen=chosen,
            wide=triton.next_power_of_2(chosen),
            num_warps=1,
            enable_fp_fusion=True,
        )
    return index, weight


def _results(logits: Tensor, chosen: int) -> Routed:
    shape = len(logits), chosen
    return logits.new_empty(shape, dtype=torch.int64), logits.new_empty(shape, dtype=torch.float32)


@triton.jit
def _softmax(
    logits, index, weight, experts: tl.constexpr, padded: tl.constexpr, chosen: tl.constexpr,
    wide: tl.constexpr, renormalise: tl.constexpr,
):  # fmt: skip
    token, expert = tl.program_id(0).to(tl.int64), tl.arange(0, padded)
    s = tl.load(logits + token * experts + expert, mask=expert < experts, other=float("-inf")).to(tl.float32)
    e = tl.exp(s - tl.max(s, 0))
    p = e / tl.sum(e, 0)
    places, shares = _best(p, tl.where(expert < experts, p, -1.0), padded, chosen, wide)
    if renormalise:
        shares = shares / tl.sum(shares, 0)
    choice = tl.arange(0, wide)
    # Were a logit not a number, a place might be beyond the experts, and what is read there anything.
    tl.store(index + token * chosen + choice, tl.minimum(places, experts - 1), mask=choice < chosen)
    tl.store(weight + token * chosen + choice, shares, mask=choice < chosen)


@triton.jit
def _grouped_sigmoid(
    logits, bias, index, weight, scale, groups: tl.constexpr, size: tl.constexpr,
    padded_groups: tl.constexpr, padded: tl.constexpr, flat: tl.constexpr, groups_chosen: tl.constexpr,
    chosen: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    group, member = tl.arange(0, padded_groups), tl.arange(0, padded)
    here = (group < groups)[:, None] & (member < size)[None, :]
    expert = group[:, None] * size + member[None, :]
    s = tl.load(logits + token * groups * size + expert, mask=here, other=0.0).to(tl.float32)
    affinity = 1.0 / (1.0 + tl.exp(tl.minimum(-s, 80.0)))
    rank = affinity + tl.load(bias + expert, mask=here, other=0.0).to(tl.float32)
    rank = tl.where(here, rank, float("-inf"))
    of_group = tl.max(rank, 1)
    if size > 1:
        others = tl.where(member[None, :] == tl.argmax(rank, 1)[:, None], float("-inf"), rank)
        of_group += tl.max(others, 1)
    of_group = tl.where(group < groups, of_group, float("-inf"))
    kept = group < 0
    for _ in tl.static_range(groups_chosen):
        best = tl.argmax(of_group, 0)
        kept = kept | (group == best)
        of_group = tl.where(group == best, float("-inf"), of_group)
    rank = tl.where(kept[:, None], rank, float("-inf"))
    places, shares = _best(tl.reshape(affinity, (flat,)), tl.reshape(rank, (flat,)), flat, chosen, wide)
    if chosen > 1:
        shares = shares / (tl.sum(shares, 0) + 1e-20)
    choice = tl.arange(0, wide)
    found = tl.minimum(places // padded * size + places % padded, groups * size - 1)
    tl.store(index + token * chosen + choice, found, mask=choice < chosen)
    tl.store(weight + token * chosen + choice, shares * scale, mask=choice < chosen)


@triton.jit
def _best(value, rank, width: tl.constexpr, chosen: tl.constexpr, wide: tl.constexpr):
    """Places [wide] int64 of the highest ranks [width], highest first, and the values there; then zeros."""
    place, choice = tl.arange(0, width), tl.arange(0, wide)
    places, values = tl.zeros((wide,), tl.int64), tl.zeros((wide,), tl.float32)
    for nth in tl.static_range(chosen):
        best = tl.argmax(rank, 0)
        places = tl.where(choice == nth, best.to(tl.int64), places)
        values = tl.where(choice == nth, tl.sum(tl.where(place == best, value, 0.0), 0), values)
        rank = tl.where(place == best, float("-inf"), rank)
    return places, values
