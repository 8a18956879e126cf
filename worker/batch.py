"""One forward's input: a plan's rows laid out as ragged tokens, and who attends to what."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from easel.kernels.attention import AttentionLayout, attention_layout
from easel.scheduler.messages import BatchPlan
from easel.worker.pieces import Geometry, Piece, pieces_of
from easel.worker.registers import CanvasRegisters

Numbers: TypeAlias = "array[int]"  # of 64 bits


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """What a model reads. `n` is the number of tokens, `w` of those whose keys are stored."""

    tokens: Tensor  # [n]  int64
    positions: Tensor  # [n]  int64  absolute
    layouts: tuple[AttentionLayout, ...]  # per KV group
    written: Tensor  # [w]  int64  which of the n tokens' keys and values are stored
    written_to: tuple[Tensor, ...]  # per KV group [w]  int64  the store token each goes to
    places: tuple[Tensor, ...]  # per KV group [n]  int64  the same of every token; -1: it is not stored
    canvases: Tensor  # [c, block]  int64  which of the n tokens predicts each position; 0: not computed
    slots: Tensor  # [c]  int64  the slot of each canvas
    filled: Tensor  # [f]  int64  which of the n tokens are read from the registers
    filled_from: Tensor  # [f]  int64  slot * block + offset of each

    def fill(self, registers: CanvasRegisters) -> None:
        """Read the canvases' tokens as they are now."""
        held = registers.state.tokens.view(-1).index_select(0, self.filled_from)
        self.tokens.index_copy_(0, self.filled, held)


def _numbers() -> Numbers:
    return array("q")


@dataclass(slots=True)
class _Columns:
    """The batch in the making, as plain numbers."""

    tokens: Numbers = field(default_factory=_numbers)
    positions: Numbers = field(default_factory=_numbers)
    written: Numbers = field(default_factory=_numbers)
    filled: Numbers = field(default_factory=_numbers)  # tokens that come from registers
    filled_from: Numbers = field(default_factory=_numbers)  # slot * block + offset


def build_batch(
    plan: BatchPlan, registers: CanvasRegisters, geometry: Geometry, device: torch.device
) -> ForwardBatch:
    """Lay out a plan whose canvases are already open in `registers`; their tokens are filled in later.

    Pieces are sorted by what they see so that attention pads little; `canvases` keeps the
    plan's order.
    """
    canvas_rows = [row for row in plan.rows if not row.kind.writes_pages]
    live = registers.live_positions([row.slot for row in canvas_rows if row.partial])
    pieces = [piece for row in plan.rows for piece in pieces_of(row, geometry, live.get(row.slot, ()))]
    pieces.sort(key=lambda piece: (piece.rows[0].prefix, piece.length))
    columns, groups = _Columns(), range(len(geometry.windows))
    places = [_numbers() for _ in groups]
    canvases = {row.slot: array("q", [0]) * geometry.block_length for row in canvas_rows}
    for piece in pieces:
        _add(piece, columns, places, canvases, geometry)
    slots = array("q", [row.slot for row in canvas_rows])
    named = (columns.tokens, columns.positions, columns.written, columns.filled, columns.filled_from, slots)
    tokens, positions, written, filled, filled_from, at, *rest = _tensors(
        [*named, *places, *(canvases[row.slot] for row in canvas_rows)], device
    )
    everywhere, held = tuple(rest[: len(places)]), rest[len(places) :]
    return ForwardBatch(
        tokens=tokens,
        positions=positions,
        layouts=tuple(
            attention_layout(
                [piece.rows[group] for piece in pieces], geometry.page_size, device, fixed=geometry.fixed
            )
            for group in groups
        ),
        written=written,
        written_to=tuple(of_group.index_select(0, written) for of_group in everywhere),
        places=everywhere,
        canvases=torch.stack(held) if held else tokens.new_empty(0, geometry.block_length),
        slots=at,
        filled=filled,
        filled_from=filled_from,
    )


def _tensors(columns: Sequence[Numbers], device: torch.device) -> list[Tensor]:
    """One tensor of each column; all of them reach the device in one copy."""
    whole = array("q")
    for column in columns:
        whole.extend(column)
    if not whole:
        return [torch.empty(0, dtype=torch.int64, device=device) for _ in columns]
    joined = torch.frombuffer(whole, dtype=torch.int64).to(device)
    return list(torch.split(joined, [len(column) for column in columns]))


def _add(
    piece: Piece,
    columns: _Columns,
    places: Sequence[Numbers],
    canvases: dict[int, Numbers],
    geometry: Geometry,
) -> None:
    at = len(columns.tokens)
    columns.tokens.extend(piece.tokens)
    columns.positions.extend(piece.positions)
    if piece.stored:
        columns.written.extend(range(at, at + piece.length))
    for column, of_group in zip(places, piece.stored or [[-1] * piece.length] * len(places), strict=True):
        column.extend(of_group)
    if piece.canvas_start is not None:
        _add_canvas(piece.positions, piece.canvas_start, at, piece.slot, columns, canvases, geometry)


def _add_canvas(
    positions: Sequence[int],
    canvas_start: int,
    at: int,
    slot: int,
    columns: _Columns,
    canvases: dict[int, Numbers],
    geometry: Geometry,
) -> None:
    """Which of the tokens from `at` on are a canvas's, and which ones predict its positions."""
    canvas, block, shift = canvases[slot], geometry.block_length, geometry.shift
    if isinstance(positions, range):
        zero, end = canvas_start - positions.start, len(positions)  # where offset 0 is, or would be
        first, last = max(0, zero), min(end, zero + block)
        columns.filled.extend(range(at + first, at + last))
        columns.filled_from.extend(range(slot * block + first - zero, slot * block + last - zero))
        first, last = max(0, zero - shift), min(end, zero + block - shift)
        moved = shift - zero
        canvas[first + moved : last + moved] = array("q", range(at + first, at + last))
        return
    for index, position in enumerate(positions, start=at):
        offset = position - canvas_start
        if 0 <= offset < block:
            columns.filled.append(index)
            columns.filled_from.append(slot * block + offset)
        if 0 <= offset + shift < block:
            canvas[offset + shift] = index
