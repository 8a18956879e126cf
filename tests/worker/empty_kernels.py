"""A GPU's kernels on a CPU: what they allocate is allocated, and what they compute is left at zero."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from easel import kernels
from easel.kernels.attention import AttentionLayout, AttentionRow
from easel.kernels.attention_layout import ragged_rows
from easel.kernels.moe_routes import Routes, route
from easel.kernels.norm_rope import HeadRules


@dataclass(slots=True)
class EmptyKernels:
    """Rows are laid out as for a GPU, layers take the ways they take there."""

    most_tokens: int = 0  # of one forward

    def install(self, patch: pytest.MonkeyPatch) -> None:
        launches: dict[str, dict[str, Callable[..., Any]]] = {
            "attention_triton": {"ragged_attention": _attend},
            "norm_triton": {"fused_rms_norm": _norm, "fused_add_norms": _add_norms},
            "norm_rope_triton": {"fused_heads": _heads},
            "moe_triton": {"fused_gated": _gated, "sorted_pairs": route, "summed_products": _summed},
        }
        for name, functions in launches.items():
            module = ModuleType(f"easel.kernels.{name}")
            for function, stand_in in functions.items():
                patch.setattr(module, function, stand_in, raising=False)
            patch.setitem(sys.modules, module.__name__, module)
            patch.setattr(kernels, name, module, raising=False)
        for user in ("norm", "norm_rope", "moe"):
            patch.setattr(f"easel.kernels.{user}.has_triton", _yes)
        patch.setattr("easel.worker.models.decoder.has_triton", _yes)
        patch.setattr("easel.kernels.moe.suits_grouped_mm", _yes)
        patch.setattr("easel.kernels.linear.ROW_TILE", 1)  # rows are filled up on a CPU only
        patch.setattr("easel.worker.batch.attention_layout", self._layout)

    def _layout(
        self, rows: Sequence[AttentionRow], page_size: int, device: torch.device, *, fixed: bool
    ) -> AttentionLayout:
        self.most_tokens = max(self.most_tokens, sum(row.length for row in rows))
        return AttentionLayout((), ragged_rows(rows, page_size, device))


def _yes(*_arguments: object) -> bool:
    return True


def _attend(*arguments: Tensor) -> None:
    arguments[-1].zero_()


def _norm(x: Tensor, weight: Tensor | None, eps: float, *, round_once: bool) -> Tensor:
    return torch.zeros_like(x)


def _add_norms(
    x: Tensor, added: Tensor, weights: Tensor, eps: float, *, added_weight: Tensor | None, round_once: bool
) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(x), x.new_zeros(len(weights), *x.shape)


def _heads(
    projected: Tensor,
    weight: Tensor | None,
    angles: tuple[Tensor, Tensor],
    rules: HeadRules,
    slots: Tensor,
    stores: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    made = rules.turned + (rules.kv_heads if rules.scale_values else 0)
    out = projected.new_zeros(len(projected), made, projected.shape[2])
    values = out[:, rules.turned :] if rules.scale_values else projected[:, -rules.kv_heads :]
    return out[:, : rules.heads], out[:, rules.heads : rules.turned], values


def _gated(gate_up: Tensor, activation: object) -> Tensor:
    return gate_up.new_zeros(len(gate_up), gate_up.shape[1] // 2)


def _summed(products: Tensor, routes: Routes, weight: Tensor) -> Tensor:
    return products.new_zeros(len(weight), products.shape[1])
