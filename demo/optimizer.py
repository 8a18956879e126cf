"""Muon for the hidden matrices, AdamW for the rest, and an average of the weights.

Muon: Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. PyTorch's own
orthogonalises in bfloat16 and one matrix at a time, which is slow on a CPU without bfloat16 units;
this one works in float32 on all matrices of a shape together.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Roughly the nearest semi-orthogonal matrices of [count, rows, columns] float32."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; an update's spectral norm is lr · max(1, sqrt(rows / columns))."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for same_shape in _by_shape(group["params"]):
                self._update(same_shape, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, params: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        directions: list[Tensor] = []
        for param in params:
            gradient = torch.zeros_like(param) if param.grad is None else param.grad
            buffer: Tensor = self.state[param].setdefault("momentum", torch.zeros_like(param))
            buffer.lerp_(gradient, 1 - momentum)
            directions.append(gradient.lerp(buffer, momentum))
        scale = max(1.0, params[0].shape[0] / params[0].shape[1]) ** 0.5
        updates = orthogonalise(torch.stack(directions))
        for param, update in zip(params, updates, strict=True):
            param.mul_(1 - lr * weight_decay).sub_(update, alpha=lr * scale)


def _by_shape(params: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
    for param in params:
        groups.setdefault(tuple(param.shape), []).append(param)
    return list(groups.values())


def build_optimizers(model: nn.Module, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(hidden, lr=muon_lr, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Moves the exponential average of the weights on; it warms up over the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for kept, current in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(current, 1 - decay)
