"""Which experts a token goes through (Shazeer et al., 2017), and how much each counts.

Nothing here waits for the device: every shape follows from the arguments' shapes. On a GPU each router is
one Triton launch.
"""

from typing import cast

import torch
from torch import Tensor

from easel.kernels.row_stats import has_triton


def softmax_router(logits: Tensor, chosen: int, renormalise: bool) -> tuple[Tensor, Tensor]:
    """The `chosen` likeliest of E experts, each weighted by its probability.

    logits [n, E] any float dtype. Returns the experts [n, chosen] int64, likeliest first, and
    their weights [n, chosen] float32, which sum to 1 where they are renormalised.
    """
    if has_triton(logits):
        # Imported here: triton is only where there is a GPU.
        from easel.kernels.moe_router_triton import fused_softmax_router  # noqa: PLC0415

        return fused_softmax_router(logits.contiguous(), chosen, renormalise)
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
    if has_triton(logits):
        from easel.kernels.moe_router_triton import fused_grouped_sigmoid_router  # noqa: PLC0415

        chosen_of = chosen, groups, groups_chosen, scale
        return fused_grouped_sigmoid_router(logits.contiguous(), bias.contiguous(), *chosen_of)
    # Not sigmoid(): what is left of its vectors goes through another exponential than the rest.
    affinity = logits.float().neg().exp_().add_(1.0).reciprocal_()
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


def _best(scores: list[float], count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:count]


def _floats(tensor: Tensor) -> list[float]:
    return cast(list[float], tensor.tolist())
