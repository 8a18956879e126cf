"""What follows attention in a layer: a gated MLP, or a mixture of such experts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from easel.kernels.linear import TiledWeight, Weight, linear
from easel.kernels.moe import (
    Activation,
    ExpertScales,
    expert_mlp,
    gated,
    grouped_sigmoid_router,
    softmax_router,
)
from easel.worker.models.config import Experts, Router
from easel.worker.parameters import expert_scales_of, weight_of

FED_AT_ONCE = 1 << 14  # tokens that go through a layer's second half at a time; bounds its workspace

# A layer's second half: from what came in and what attention made of it, both [n, h], and what else it
# takes of each token, to the layer's result and the next layer's normalised input, both [n, h].
Feed: TypeAlias = Callable[..., tuple[Tensor, Tensor]]


def fed(feed: Feed, x: Tensor, attended: Tensor, *beside: Tensor) -> tuple[Tensor, Tensor]:
    """What `feed` makes of all tokens, FED_AT_ONCE at a time; results of more overwrite x and attended."""
    if len(x) <= FED_AT_ONCE:
        return feed(x, attended, *beside)
    for start in range(0, len(x), FED_AT_ONCE):
        some = slice(start, start + FED_AT_ONCE)
        x[some], attended[some] = feed(x[some], attended[some], *(each[some] for each in beside))
    return x, attended


@dataclass(frozen=True, slots=True)
class DenseMLP:
    """down · (silu(gate · x) * (up · x))."""

    gate_up: Weight  # [2 size, h]  the gate's rows first
    down: Weight  # [h, size]
    fixed: bool = False  # whether a token's result may not depend on the others, to the last bit

    def forward(self, x: Tensor) -> Tensor:
        """[n, h] to [n, h]."""
        return linear(gated(linear(x, self.gate_up), Activation.SILU, fixed=self.fixed), self.down)


@dataclass(frozen=True, slots=True)
class ExpertMLP:
    """A few of many MLPs for each token, and perhaps one for all tokens."""

    experts: Experts
    router: Tensor  # [experts, h]  its dtype is the one affinities are computed in
    router_bias: Tensor | None  # [experts]  float32
    gate_up: Tensor  # [experts, 2 size, h]
    down: Tensor  # [experts, h, size]
    scales: ExpertScales | None  # of float8 experts
    shared: DenseMLP | None
    fixed: bool = False  # as of DenseMLP

    def forward(self, x: Tensor) -> Tensor:
        """[n, h] to [n, h]."""
        matrices = self.gate_up, self.down
        found = expert_mlp(x, *self.route(x), *matrices, Activation.SILU, self.scales, fixed=self.fixed)
        return found if self.shared is None else found.add_(self.shared.forward(x))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The experts of each token [n, chosen] int64 and their weights [n, chosen] float32."""
        experts = self.experts
        router = TiledWeight(self.router) if self.fixed else self.router
        logits = linear(x.to(self.router.dtype), router)
        if self.router_bias is None:
            return softmax_router(logits, experts.chosen, experts.renormalise)
        groups = experts.groups, experts.groups_chosen
        return grouped_sigmoid_router(logits, self.router_bias, experts.chosen, *groups, experts.scale)


def build_mlp(
    parameters: Mapping[str, Tensor], prefix: str, experts: Experts | None, *, fixed: bool = False
) -> DenseMLP | ExpertMLP:
    """A layer's MLP from parameters whose names begin with `prefix`."""
    if experts is None:
        return _dense(parameters, prefix, fixed=fixed)
    grouped = experts.router is Router.GROUPED_SIGMOID
    return ExpertMLP(
        experts=experts,
        router=parameters[f"{prefix}router"],
        router_bias=parameters[f"{prefix}router_bias"] if grouped else None,
        gate_up=parameters[f"{prefix}expert_gate_up"],
        down=parameters[f"{prefix}expert_down"],
        scales=expert_scales_of(parameters, prefix),
        shared=_dense(parameters, f"{prefix}shared_", fixed=fixed) if experts.shared_size else None,
        fixed=fixed,
    )


def _dense(parameters: Mapping[str, Tensor], prefix: str, *, fixed: bool) -> DenseMLP:
    gate_up, down = (weight_of(parameters, f"{prefix}{name}", tiled=fixed) for name in ("gate_up", "down"))
    return DenseMLP(gate_up, down, fixed)
