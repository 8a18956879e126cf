"""Random experts, and tokens for them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


@dataclass(frozen=True, slots=True)
class Layer:
    x: Tensor  # [n, h]
    index: Tensor  # [n, k]  int64
    weight: Tensor  # [n, k]  float32
    gate_up: Tensor  # [E, 2I, h]
    down: Tensor  # [E, h, I]

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As `expert_mlp` takes them."""
        return self.x, self.index, self.weight, self.gate_up, self.down

    def only(self, row: int) -> "Layer":
        """One token, and nothing else in the batch."""
        one = slice(row, row + 1)
        return replace(self, x=self.x[one], index=self.index[one], weight=self.weight[one])

    def on(self, device: torch.device) -> "Layer":
        return Layer(*(tensor.to(device) for tensor in self.all))

    def but(self, name: str, tensor: Tensor) -> "Layer":
        return replace(self, **{name: tensor})


def layer_of(tokens: int, hidden: int, size: int, experts: int, chosen: int, dtype: torch.dtype) -> Layer:
    """Results are of the order of 1."""
    draw = torch.Generator().manual_seed(tokens + hidden)
    gate_up = torch.randn(experts, 2 * size, hidden, generator=draw) * hidden**-0.5
    down = torch.randn(experts, hidden, size, generator=draw) * size**-0.5
    return Layer(
        x=torch.randn(tokens, hidden, generator=draw).to(dtype),
        index=random_index(tokens, experts, chosen),
        weight=torch.rand(tokens, chosen, generator=draw).softmax(-1),
        gate_up=gate_up.to(dtype),
        down=down.to(dtype),
    )


def random_index(tokens: int, experts: int, chosen: int) -> Tensor:
    """[tokens, chosen] int64, different ones for each token; some experts are favoured."""
    draw = torch.Generator().manual_seed(experts)
    liking = torch.rand(tokens, experts, generator=draw) + torch.rand(experts, generator=draw)
    return liking.topk(chosen, dim=-1).indices
