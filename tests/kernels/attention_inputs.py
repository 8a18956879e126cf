"""Rows of every kind, and random queries, keys and values for them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from random import Random

import torch
from torch import Tensor

from easel.kernels.attention import (
    AttentionLayout,
    AttentionRow,
    attention_layout,
    canvas_attention,
    reference_canvas_attention,
)
from easel.kernels.attention_layout import ragged_rows

CPU = torch.device("cpu")
KERNEL_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in the interpreter
PAGES = 24
CANVAS = 12  # store tokens behind the pages
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Problem:
    rows: Sequence[AttentionRow]
    page_size: int
    q: Tensor  # [tokens, heads, d]
    k: Tensor  # [tokens, kv_heads, d]
    v: Tensor  # [tokens, kv_heads, d]
    k_store: Tensor  # [store tokens, kv_heads, d]
    v_store: Tensor  # [store tokens, kv_heads, d]
    scale: float

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.q, self.k, self.v, self.k_store, self.v_store

    def solve(self) -> Tensor:
        """In dense groups."""
        return self._attend(attention_layout(self.rows, self.page_size, CPU))

    def solve_by_kernel(self) -> Tensor:
        layout = AttentionLayout((), ragged_rows(self.rows, self.page_size, KERNEL_DEVICE))
        return self._attend(layout)

    def reference(self) -> Tensor:
        return reference_canvas_attention(*self.tensors(), self.rows, self.page_size, self.scale)

    def only(self, index: int) -> "Problem":
        """One row, and nothing else in the batch."""
        start = sum(row.length for row in self.rows[:index])
        span = slice(start, start + self.rows[index].length)
        q, k, v = (tensor[span] for tensor in (self.q, self.k, self.v))
        return replace(self, rows=[self.rows[index]], q=q, k=k, v=v)

    def to(self, dtype: torch.dtype) -> "Problem":
        names = [field.name for field in fields(self) if isinstance(getattr(self, field.name), Tensor)]
        return replace(self, **{name: getattr(self, name).to(dtype) for name in names})

    def _attend(self, layout: AttentionLayout) -> Tensor:
        device = KERNEL_DEVICE if layout.ragged else CPU
        tensors = [tensor.to(device) for tensor in self.tensors()]
        q, k, v, k_store, v_store = tensors
        return canvas_attention(q, k, v, k_store, v_store, layout, self.scale).cpu()


def rows_of(
    prefixes: Sequence[int], length: int, page_size: int, *, causal: bool = False
) -> list[AttentionRow]:
    """Rows with pages of a random order; like requests with a common beginning, they share some."""
    draw = Random(7)
    rows: list[AttentionRow] = []
    for prefix in prefixes:
        pages = [draw.randrange(PAGES) for _ in range(-(-prefix // page_size) + draw.randrange(2))]
        rows.append(AttentionRow(tuple(pages), prefix, length, causal))
    return rows


def rows_of_every_kind(page_size: int) -> list[AttentionRow]:
    """A block, a causal chunk, a window, a partial canvas, and what comes between: short and long."""
    canvas = PAGES * page_size
    block, first, chunk, sliding, partial, stored = rows_of((40, 0, 21, 50, 17, 30), 5, page_size)
    return [
        block,
        replace(first, length=9),
        replace(chunk, length=40, causal=True),
        replace(sliding, prefix=50 - page_size, skip=page_size - 1, length=17, causal=True, window=11),
        replace(partial, length=4, canvas=(canvas + 3, 8), fresh=False),
        replace(stored, length=1, fresh=False),
        replace(block, length=35, canvas=(canvas, CANVAS)),
        replace(first, length=3, causal=True),
        replace(chunk, length=3, causal=True, canvas=(canvas + 1, 7)),
    ]


def problem_of(
    rows: Sequence[AttentionRow], *, page_size: int, heads: int, kv_heads: int, dim: int
) -> Problem:
    generator = torch.Generator().manual_seed(len(rows) + heads)
    tokens = sum(row.length for row in rows)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Problem(
        rows=rows,
        page_size=page_size,
        q=normal(tokens, heads, dim),
        k=normal(tokens, kv_heads, dim),
        v=normal(tokens, kv_heads, dim),
        k_store=normal(PAGES * page_size + CANVAS, kv_heads, dim),
        v_store=normal(PAGES * page_size + CANVAS, kv_heads, dim),
        scale=dim**-0.5,
    )


def unseen(problem: Problem) -> Tensor:
    """[store tokens] bool: those that no row may look at."""
    hidden = torch.ones(len(problem.k_store), dtype=torch.bool)
    size = problem.page_size
    for row in problem.rows:
        for at in range(row.skip, row.skip + row.prefix):
            hidden[row.pages[at // size] * size + at % size] = False
        hidden[row.canvas[0] : sum(row.canvas)] = False
    return hidden
