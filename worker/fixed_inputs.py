"""A batch of canvases in tensors of fixed places and sizes, as a recorded step needs them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.attention_layout import NO_WINDOW, ROW_FIELDS, AttentionLayout, RaggedRows
from easel.worker.batch import ForwardBatch


def bucket_sizes(slots: int) -> tuple[int, ...]:
    """Numbers of canvases that steps are recorded for: 1, 2, 4, 8, then eights, then sixteens and so on.

    A batch is padded by less than half of itself, and by less than a quarter from 8 on.
    """
    sizes, size = [1], 1
    while size < slots:
        size += max(1, 1 << max(0, size.bit_length() - 3)) if size >= 8 else size
        sizes.append(min(size, slots))
    return tuple(sizes)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What no batch of canvases of a replica exceeds."""

    block_length: int
    pages: tuple[int, ...]  # per KV group, of one row
    spare_slot: int  # whose canvas is never active: rows that fill a bucket are its


@dataclass(frozen=True, slots=True)
class FixedInputs:
    """A batch of `c` canvases, all of their positions and nothing else, padded to a bucket."""

    batch: ForwardBatch
    real: Tensor  # [c]  bool  rows that are there; the others are padding
    bounds: Bounds

    @classmethod
    def allocate(cls, canvases: int, bounds: Bounds, page_size: int, device: torch.device) -> "FixedInputs":
        block, tokens = bounds.block_length, canvases * bounds.block_length

        def integers(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        layouts = tuple(
            AttentionLayout(
                (),
                RaggedRows(
                    integers(canvases, len(ROW_FIELDS), dtype=torch.int32),
                    integers(canvases * most, dtype=torch.int32),
                    tokens,
                    page_size,
                ),
            )
            for most in bounds.pages
        )
        empty = integers(0)
        batch = ForwardBatch(
            tokens=integers(tokens),
            positions=integers(tokens),
            layouts=layouts,
            written=empty,
            written_to=tuple(empty for _ in bounds.pages),
            places=tuple(integers(tokens).fill_(-1) for _ in bounds.pages),
            canvases=torch.arange(tokens, device=device).view(canvases, block),
            slots=integers(canvases),
            filled=torch.arange(tokens, device=device),
            filled_from=integers(tokens),
        )
        return cls(batch, torch.zeros(canvases, dtype=torch.bool, device=device), bounds)

    def load(self, batch: ForwardBatch) -> None:
        """Take over a batch that `fits`; nothing of the last one is kept."""
        own, count, block = self.batch, len(batch.slots), self.bounds.block_length
        used = count * block
        own.positions[:used] = batch.positions
        own.positions[used:] = 0
        # Tokens are laid out by what they see, canvases in the plan's order: only where they are differs.
        plain = torch.arange(len(own.tokens), device=self.real.device)
        own.canvases[:count] = batch.canvases
        own.canvases.view(-1)[used:] = plain[used:]
        own.slots[:count] = batch.slots
        own.slots[count:] = self.bounds.spare_slot
        own.filled[:used] = batch.filled
        own.filled[used:] = plain[used:]
        own.filled_from[:used] = batch.filled_from
        own.filled_from[used:] = self._spare_tokens(len(own.filled_from) - used)
        self.real[:count] = True
        self.real[count:] = False
        for mine, given in zip(own.layouts, batch.layouts, strict=True):
            self._load_rows(mine, given, count)

    def clear(self) -> None:
        """Nothing but padding."""
        own = self.batch
        plain = torch.arange(len(own.tokens), device=self.real.device)
        own.positions.zero_()
        own.canvases.view(-1).copy_(plain)
        own.filled.copy_(plain)
        own.slots.fill_(self.bounds.spare_slot)
        own.filled_from.copy_(self._spare_tokens(len(own.filled_from)))
        self.real.zero_()
        for layout in own.layouts:
            self._pad(ragged_of(layout), 0)

    def _spare_tokens(self, count: int) -> Tensor:
        block = self.bounds.block_length
        offsets = torch.arange(count, device=self.real.device) % block
        return self.bounds.spare_slot * block + offsets

    def _load_rows(self, mine: AttentionLayout, given: AttentionLayout, count: int) -> None:
        own, rows = ragged_of(mine), ragged_of(given)
        own.table[:count] = rows.table
        own.pages[: len(rows.pages)] = rows.pages
        self._pad(own, count)

    def _pad(self, rows: RaggedRows, count: int) -> None:
        """Rows from `count` on: their queries see each other and no page."""
        padding, block = rows.table[count:], self.bounds.block_length
        padding.zero_()
        starts = torch.arange(count, len(rows.table), device=padding.device) * block
        padding[:, ROW_FIELDS.index("start")] = starts.to(torch.int32)
        for name, value in (("length", block), ("fresh", 1), ("window", NO_WINDOW)):
            padding[:, ROW_FIELDS.index(name)] = value


def ragged_of(layout: AttentionLayout) -> RaggedRows:
    if layout.ragged is None:
        raise ValueError("a recorded step needs rows as the attention kernel reads them, not groups")
    return layout.ragged


def fits(batch: ForwardBatch, bounds: Bounds) -> bool:
    """Whether a batch is nothing but canvases, each with all its positions."""
    tokens = len(batch.slots) * bounds.block_length
    plain = len(batch.tokens) == len(batch.filled) == tokens and not batch.written.numel()
    return plain and tokens > 0 and all(layout.ragged is not None for layout in batch.layouts)


def bucket_of(count: int, sizes: Sequence[int]) -> int:
    return next(size for size in sizes if size >= count)
