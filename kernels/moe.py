"""Mixture of experts: which experts a token goes through, and their gated MLPs (Shazeer et al., 2017)."""

from enum import Enum
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F


class Activation(Enum):
    """What the gate of an MLP goes through."""

    SILU = "silu"
    GELU_TANH = "gelu, tanh approximation"


def softmax_router(logits: Tensor, chosen: int, renormalise: bool) -> tuple[Tensor, Tensor]:
    """The `chosen` likeliest of E experts, each weighted by its probability.

    logits [n, E] any float dtype. Returns the experts [n, chosen] int64, likeliest first, and
    their weights [n, chosen] float32, which sum to 1 where they are renormalised.
    """
    weight, index = logits.float().softmax(-1).topk(chosen, dim=-1)
    return index, weight / weight.sum(-1, keepdim=True) if renormalise else weight


def grouped_sigmoid_router(
    logits: Tensor, bias: Tensor, chosen: int, groups: int, groups_chosen: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The best experts of the best groups, as DeepSeek-V3 (2024, section 2.1.2) routes.

    logits [n, E], bias [E]. An expert's affinity is the sigmoid of its logit; with its bias
    added it competes: a group by the sum of its best two, then the experts of the
    `groups_chosen` best groups. Returns the experts [n, chosen] int64 and their weights
    [n, chosen] float32: affinities without the bias that sum to `scale` (one expert's own
    affinity times `scale` when only one is chosen).
    """
    experts = logits.shape[-1]
    if experts % groups:
        raise ValueError(f"grouped_sigmoid_router: {experts} experts do not divide into {groups} groups")
    affinity = logits.float().sigmoid()
    rank = (affinity + bias.float()).view(-1, groups, experts // groups)
    group_rank = rank.topk(min(2, experts // groups), dim=-1).values.sum(-1)
    left_out = torch.ones_like(group_rank, dtype=torch.bool)
    left_out.scatter_(1, group_rank.topk(groups_chosen, dim=-1).indices, False)
    rank = rank.masked_fill(left_out[..., None], float("-inf")).view_as(affinity)
    index = rank.topk(chosen, dim=-1).indices
    weight = affinity.gather(1, index)
    if chosen > 1:
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
    return index, weight * scale


def expert_mlp(
    x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, activation: Activation
) -> Tensor:
    """Weighted sum of each token's experts.

    x [n, h]; index [n, k] int64 and weight [n, k] float32, the experts of each token, all
    different; gate_up [E, 2I, h], the gates' rows first; down [E, h, I]. Returns [n, h] of x's
    dtype. A token's experts are summed in float32 by ascending number, whatever else is in
    the batch.
    """
    _check(x, index, weight, gate_up, down)
    order = index.flatten().argsort(stable=True)
    token, share = order // index.shape[1], weight.flatten()[order, None]
    out = torch.zeros_like(x, dtype=torch.float32)
    start = 0
    for expert, count in enumerate(_ints(index.flatten().bincount(minlength=len(gate_up)))):
        if not count:
            continue
        rows = slice(start, start + count)
        inner = gated(F.linear(x[token[rows]], gate_up[expert]), activation)
        out.index_add_(0, token[rows], F.linear(inner, down[expert]).float().mul_(share[rows]))
        start += count
    return out.to(x.dtype)


def gated(gate_up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up of [..., 2I], the gate's half first. Returns [..., I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    if activation is Activation.SILU:
        return F.silu(gate).mul_(up)
    return F.gelu(gate, approximate="tanh").mul_(up)


def reference_softmax_router(logits: Tensor, chosen: int, renormalise: bool) -> tuple[Tensor, Tensor]:
    """The definition, a token at a time, in float64."""
    index = torch.empty(len(logits), chosen, dtype=torch.int64)
    weight = torch.empty(len(logits), chosen, dtype=torch.float64)
    for row, of_token in enumerate(logits.double()):
        probability = of_token.exp() / of_token.exp().sum()
        best = _best(_floats(probability), chosen)
        index[row] = torch.tensor(best)
        weight[row] = probability[best] / (probability[best].sum() if renormalise else 1.0)
    return index, weight.float()


def reference_grouped_sigmoid_router(
    logits: Tensor, bias: Tensor, chosen: int, groups: int, groups_chosen: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The definition, a token at a time, in float64."""
    size = logits.shape[1] // groups
    index = torch.empty(len(logits), chosen, dtype=torch.int64)
    weight = torch.empty(len(logits), chosen, dtype=torch.float64)
    for row, of_token in enumerate(logits.double()):
        affinity = 1 / (1 + (-of_token).exp())
        rank = _floats(affinity + bias.double())
        kept = _best(
            [sum(sorted(rank[at : at + size])[-2:]) for at in range(0, len(rank), size)], groups_chosen
        )
        rank = [score if expert // size in kept else float("-inf") for expert, score in enumerate(rank)]
        best = _best(rank, chosen)
        index[row] = torch.tensor(best)
        total = affinity[best].sum() + 1e-20 if chosen > 1 else 1.0
        weight[row] = affinity[best] / total * scale
    return index, weight.float()


def reference_expert_mlp(
    x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, activation: Activation
) -> Tensor:
    """The definition, a token and an expert at a time, in float64."""
    out = torch.zeros_like(x, dtype=torch.float64)
    size = down.shape[2]
    for row, token in enumerate(x.double()):
        for expert, share in zip(_ints(index[row]), _floats(weight[row]), strict=True):
            both = gate_up[expert].double() @ token
            gate, up = both[:size], both[size:]
            turned = F.silu(gate) if activation is Activation.SILU else F.gelu(gate, approximate="tanh")
            out[row] += share * (down[expert].double() @ (turned * up))
    return out.to(x.dtype)


def _best(scores: list[float], count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:count]


def _ints(tensor: Tensor) -> list[int]:
    return cast(list[int], tensor.tolist())


def _floats(tensor: Tensor) -> list[float]:
    return cast(list[float], tensor.tolist())


def _check(x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor) -> None:
    experts, hidden, size = down.shape
    if (
        gate_up.shape != (experts, 2 * size, hidden)
        or x.shape[1:] != (hidden,)
        or index.shape != weight.shape
        or len(index) != len(x)
    ):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (x, index, weight, gate_up, down))
        raise ValueError(f"expert_mlp: x, index, weight, gate_up, down have shapes {shapes}")
