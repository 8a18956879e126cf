"""From hidden states to statistics and a token of each row, without logits in memory."""

from importlib.util import find_spec

import torch
from torch import Tensor

from easel.kernels.gumbel import token_noise
from easel.kernels.tile_walk import walk
from easel.kernels.tiles import ROWS, ROWS_ON_GPU, Draw, Head, RowStats


def row_stats(
    hidden: Tensor,
    head: Head,
    temperature: Tensor | None = None,
    draw: Draw | None = None,
    *,
    active: Tensor | None = None,
    out: RowStats | None = None,
) -> RowStats:
    """Statistics of s = logits / temperature and a token of each row; see RowStats.

    | argument    | shape           | dtype                                                |
    |-------------|-----------------|------------------------------------------------------|
    | hidden      | [n, h]          | that of the weight                                   |
    | head.weight | [vocabulary, h] | float32, or bfloat16, whose statistics are float32   |
    | temperature | [n]             | float32 above 0; None: 1                             |
    | draw        | [n] each        | None: the most probable tokens                       |
    | active      | [n]             | bool; rows of `out` that are not active stay as they are |
    | out         | [n] each        | where the results go; None: new tensors              |

    On a GPU that has Triton nothing waits for the device. Raises ValueError for shapes that do not fit,
    and for `active` without `out`.
    """
    _check(hidden, head, temperature, draw, active, out)
    if has_triton(hidden):
        from easel.kernels.head_triton import tiled_row_stats  # noqa: PLC0415  only where there is Triton

        found = out or RowStats.empty(len(hidden), hidden.device)
        for start in range(0, len(hidden), ROWS_ON_GPU):
            some = slice(start, start + ROWS_ON_GPU)
            part = _part(hidden, head, temperature, draw, some)
            tiled_row_stats(*part, None if active is None else active[some], found.rows(some))
        return found
    rows = slice(None) if active is None else active.nonzero().squeeze(-1)
    found = _in_blocks(*_part(hidden, head, temperature, draw, rows))
    if out is None:
        return found
    for column, values in zip(out.columns(), found.columns(), strict=True):
        column[rows] = values
    return out


def has_triton(tensor: Tensor) -> bool:
    """Whether kernels for this tensor's device can be had."""
    return tensor.is_cuda and find_spec("triton") is not None


def reference_row_stats(
    hidden: Tensor, head: Head, temperature: Tensor | None = None, draw: Draw | None = None
) -> RowStats:
    """The definition in float64, over all logits at once; draws by the plain inverse CDF."""
    s = hidden.double() @ head.weight.double().T
    if head.softcap:
        s = head.softcap * (s / head.softcap).tanh()
    if temperature is not None:
        s = s / temperature.double()[:, None]
    if head.forbidden >= 0:
        s[:, head.forbidden] = float("-inf")
    highest, best = s.max(-1)
    p = s.softmax(-1)
    entropy, total = -torch.xlogy(p, p).sum(-1), (s - highest[:, None]).exp().sum(-1)
    token, probability = best, p.amax(-1)
    if draw is not None:
        sampled = draw.temperature > 0
        tempered = s / torch.where(sampled, draw.temperature, 1.0).double()[:, None]
        drawn_from = tempered.softmax(-1)
        below = (drawn_from.cumsum(-1) <= draw.uniform[:, None]).sum(-1).clamp(max=s.shape[1] - 1)
        if draw.keys is not None:
            below = (tempered + token_noise(draw.keys, 0, s.shape[1]).double()).argmax(-1)
        token = torch.where(sampled, below, best)
        drawn_from = torch.where(sampled[:, None], drawn_from, p)
        probability = drawn_from.gather(-1, token[:, None]).squeeze(-1)
    plain = p.gather(-1, token[:, None]).squeeze(-1)
    whole = (highest, total, entropy, probability, plain)
    highest, total, entropy, probability, plain = (column.float() for column in whole)
    return RowStats(highest, best, total, entropy, token, probability, plain)


def _in_blocks(hidden: Tensor, head: Head, temperature: Tensor | None, draw: Draw | None) -> RowStats:
    found = RowStats.empty(len(hidden), hidden.device)
    for start in range(0, len(hidden), ROWS):
        rows = slice(start, start + ROWS)
        part = walk(*_part(hidden, head, temperature, draw, rows))
        for column, values in zip(found.columns(), part.columns(), strict=True):
            column[rows] = values
    return found


def _part(
    hidden: Tensor, head: Head, temperature: Tensor | None, draw: Draw | None, rows: Tensor | slice
) -> tuple[Tensor, Head, Tensor | None, Draw | None]:
    """The same of some rows."""
    temperature = None if temperature is None else temperature[rows]
    return hidden[rows], head, temperature, None if draw is None else draw.rows(rows)


def _check(
    hidden: Tensor,
    head: Head,
    temperature: Tensor | None,
    draw: Draw | None,
    active: Tensor | None,
    out: RowStats | None,
) -> None:
    if hidden.ndim != 2 or hidden.shape[1] != head.weight.shape[1] or hidden.dtype != head.weight.dtype:
        raise ValueError(
            f"row_stats: hidden {tuple(hidden.shape)} {hidden.dtype} against "
            f"weight {tuple(head.weight.shape)} {head.weight.dtype}"
        )
    if active is not None and out is None:
        raise ValueError("row_stats: rows that are not active keep what `out` holds; give `out`")
    named = {"temperature": temperature, "active": active, "draw.temperature": draw and draw.temperature}
    named |= {"draw.uniform": draw and draw.uniform, "draw.keys": draw and draw.keys}
    named |= {"out": out and out.token}
    for name, tensor in named.items():
        if tensor is not None and tensor.shape != hidden.shape[:1]:
            raise ValueError(f"row_stats: {name} {tuple(tensor.shape)} for {len(hidden)} rows")
