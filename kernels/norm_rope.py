"""From the fused projection to queries, keys and values: norms, rotation and the key store.

One Triton launch on a GPU. Elsewhere it is what kernels/norm.py and kernels/rope.py do.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.norm import reference_rms_norm, rms_norm
from easel.kernels.rope import apply_rotary, reference_apply_rotary
from easel.kernels.row_stats import has_triton


@dataclass(frozen=True, slots=True)
class HeadRules:
    """What the heads of a family's attention go through before it."""

    heads: int
    kv_heads: int
    eps: float  # of the norms
    round_once: bool = False  # see kernels/norm.py
    scale_values: bool = False  # values are brought to unit root mean square

    @property
    def turned(self) -> int:
        """How many heads are rotated: queries, then keys."""
        return self.heads + self.kv_heads


def qknorm_rope_kvwrite(
    projected: Tensor,
    weight: Tensor | None,
    angles: tuple[Tensor, Tensor],
    rules: HeadRules,
    slots: Tensor,
    stores: tuple[Tensor, Tensor],
    written: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised and rotated queries and keys, values, and both of the latter stored.

    | argument  | shape                           |                                                     |
    |-----------|---------------------------------|-----------------------------------------------------|
    | projected | [n, heads + 2 kv_heads, d]      | queries, keys, values; without values, with only    |
    |           |                                 | heads + kv_heads, they are the keys as projected    |
    | weight    | [heads + kv_heads, d]           | of the norms; None: queries and keys have none      |
    | angles    | [n, 1, r] each                  | cosines and sines, as `rotary_angles` makes them    |
    | slots     | [n] int64                       | where a token's keys go; −1: they are not stored    |
    | stores    | [store tokens, kv_heads, d] each| keys, values: written in place                      |
    | written   | [w], [w] int64                  | tokens that are stored and their slots: the same as |
    |           |                                 | `slots`, for the torch path, which else finds them  |

    All but indices share one dtype. Returns q [n, heads, d], k and v [n, kv_heads, d], each token's heads
    dense; v may be a view of `projected`. Raises ValueError for shapes that do not fit.
    """
    heads, turned, given = rules.heads, rules.heads + rules.kv_heads, projected.shape[1]
    if given not in (turned, turned + rules.kv_heads):
        raise ValueError(
            f"qknorm_rope_kvwrite: {heads} + {rules.kv_heads} heads cannot be those of projected "
            f"{tuple(projected.shape)}"
        )
    if has_triton(projected):
        from easel.kernels.norm_rope_triton import fused_heads  # noqa: PLC0415  only where there is Triton

        return fused_heads(projected, weight, angles, rules, slots, stores)
    both = projected[:, :turned]
    if weight is not None:
        both = rms_norm(both, weight, rules.eps, round_once=rules.round_once)
    both = apply_rotary(both, *angles)
    q, k, v = both[:, :heads], both[:, heads:], projected[:, -rules.kv_heads :]
    if rules.scale_values:
        v = rms_norm(v, None, rules.eps)
    tokens, to = _stored(slots) if written is None else written
    if tokens.numel():
        stores[0].index_copy_(0, to, k[tokens])
        stores[1].index_copy_(0, to, v[tokens])
    return q, k, v


def reference_qknorm_rope(
    projected: Tensor, weight: Tensor | None, angles: tuple[Tensor, Tensor], rules: HeadRules
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v, a head at a time, by the definitions of norm and rotation."""
    made: list[Tensor] = []
    for head in range(rules.turned + rules.kv_heads):
        value = head >= rules.turned
        own = projected[
            :, head - (rules.turned + rules.kv_heads) + projected.shape[1] if value else head, None
        ]
        if rules.scale_values if value else weight is not None:
            factor = None if value or weight is None else weight[head]
            own = reference_rms_norm(own, factor, rules.eps, round_once=rules.round_once)
        made.append(own if value else reference_apply_rotary(own, *angles))
    every = torch.cat(made, dim=1)
    return every[:, : rules.heads], every[:, rules.heads : rules.turned], every[:, rules.turned :]


def _stored(slots: Tensor) -> tuple[Tensor, Tensor]:
    tokens = (slots >= 0).nonzero().squeeze(-1)
    return tokens, slots[tokens]
