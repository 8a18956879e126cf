"""One forward's input: a plan's rows laid out as blocks of equal length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.attention import AttentionLayout, AttentionRow, attention_layout
from easel.scheduler.messages import BatchPlan, Row
from easel.worker.registers import CanvasRegisters


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """What a model reads. `n` is the number of tokens, `w` of those written to pages."""

    tokens: Tensor  # [n]  int64
    positions: Tensor  # [n]  int64  absolute
    layout: AttentionLayout
    written: Tensor  # [w]  int64  which of the n tokens go to pages
    written_to: Tensor  # [w]  int64  page token each goes to: page * page_size + offset
    canvases: Tensor  # [c, block]  int64  where each canvas row's tokens lie among the n


@dataclass(frozen=True, slots=True)
class _BlockRow:
    """One block of a plan row. A chunk of several blocks becomes several of these: within a
    block attention is bidirectional, and earlier blocks are read from the pages they were
    just written to, which is block-causal attention."""

    row: Row
    offset: int  # of the block, from the row's start

    @property
    def start(self) -> int:
        return self.row.start + self.offset


def build_batch(
    plan: BatchPlan, registers: CanvasRegisters, page_size: int, block_length: int, device: torch.device
) -> ForwardBatch:
    """Lay out a plan whose canvases are already open in `registers`.

    Blocks are sorted by prefix so that attention pads little; `canvases` keeps the plan's order.
    """
    blocks = [_BlockRow(row, at) for row in plan.rows for at in range(0, row.length, block_length)]
    blocks.sort(key=lambda block: block.start)
    start = torch.tensor([block.start for block in blocks], dtype=torch.int64, device=device)
    positions = start[:, None] + torch.arange(block_length, device=device)
    written = [index for index, block in enumerate(blocks) if block.row.kind.writes_pages]
    tokens = torch.empty(len(blocks), block_length, dtype=torch.int64, device=device)
    place = {block.row.slot: i for i, block in enumerate(blocks) if not block.row.kind.writes_pages}
    canvas_rows = [row for row in plan.rows if not row.kind.writes_pages]
    where = torch.tensor([place[row.slot] for row in canvas_rows], dtype=torch.int64, device=device)
    if written:
        known = [_block_tokens(blocks[index], block_length) for index in written]
        tokens[written] = torch.tensor(known, dtype=torch.int64, device=device)
    if canvas_rows:
        slots = torch.tensor([row.slot for row in canvas_rows], dtype=torch.int64, device=device)
        tokens[where] = registers.tokens[slots]
    within = torch.arange(block_length, device=device)
    targets = _page_tokens([blocks[index] for index in written], page_size, block_length)
    return ForwardBatch(
        tokens=tokens.flatten(),
        positions=positions.flatten(),
        layout=attention_layout(_attention_rows(blocks, block_length), page_size, device),
        written=_token_index(torch.tensor(written, dtype=torch.int64, device=device), within),
        written_to=torch.tensor(targets, dtype=torch.int64, device=device),
        canvases=where[:, None] * block_length + within,
    )


def _token_index(blocks: Tensor, within: Tensor) -> Tensor:
    return (blocks[:, None] * within.shape[0] + within).flatten()


def _block_tokens(block: _BlockRow, block_length: int) -> tuple[int, ...]:
    return block.row.tokens[block.offset : block.offset + block_length]


def _attention_rows(blocks: Sequence[_BlockRow], block_length: int) -> list[AttentionRow]:
    return [AttentionRow(pages=block.row.pages, prefix=block.start, length=block_length) for block in blocks]


def _page_tokens(blocks: Sequence[_BlockRow], page_size: int, block_length: int) -> list[int]:
    """Page token of each position; a block never straddles pages, which are block-aligned."""
    firsts = [
        block.row.pages[block.start // page_size] * page_size + block.start % page_size for block in blocks
    ]
    return [first + offset for first in firsts for offset in range(block_length)]
