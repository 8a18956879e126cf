"""One forward's input: a plan's rows laid out as ragged tokens, and who attends to what."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from easel.kernels.attention import AttentionLayout, attention_layout
from easel.scheduler.messages import BatchPlan
from easel.worker.pieces import Geometry, Piece, pieces_of
from easel.worker.registers import CanvasRegisters


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """What a model reads. `n` is the number of tokens, `w` of those whose keys are stored."""

    tokens: Tensor  # [n]  int64
    positions: Tensor  # [n]  int64  absolute
    layouts: tuple[AttentionLayout, ...]  # per KV group
    written: Tensor  # [w]  int64  which of the n tokens' keys and values are stored
    written_to: tuple[Tensor, ...]  # per KV group [w]  int64  the store token each goes to
    canvases: Tensor  # [c, block]  int64  which of the n tokens predicts each position; 0: not computed
    slots: Tensor  # [c]  int64  the slot of each canvas


@dataclass(slots=True)
class _Columns:
    """The batch in the making, as plain lists: one tensor each is made of them in the end."""

    tokens: list[int] = field(default_factory=list[int])
    positions: list[int] = field(default_factory=list[int])
    written: list[int] = field(default_factory=list[int])
    filled: list[int] = field(default_factory=list[int])  # which of the tokens come from registers
    filled_from: list[int] = field(default_factory=list[int])  # slot * block + offset


def build_batch(
    plan: BatchPlan, registers: CanvasRegisters, geometry: Geometry, device: torch.device
) -> ForwardBatch:
    """Lay out a plan whose canvases are already open in `registers`.

    Pieces are sorted by what they see so that attention pads little; `canvases` keeps the
    plan's order.
    """
    canvas_rows = [row for row in plan.rows if not row.kind.writes_pages]
    live = registers.live_positions([row.slot for row in canvas_rows if row.partial])
    pieces = [piece for row in plan.rows for piece in pieces_of(row, geometry, live.get(row.slot, ()))]
    pieces.sort(key=lambda piece: (piece.rows[0].prefix, piece.length))
    columns, groups = _Columns(), range(len(geometry.windows))
    stored: list[list[int]] = [[] for _ in groups]
    canvases = {row.slot: [0] * geometry.block_length for row in canvas_rows}
    for piece in pieces:
        _add(piece, columns, stored, canvases, geometry)

    def tensor(values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    tokens = tensor(columns.tokens)
    if columns.filled:
        tokens[tensor(columns.filled)] = registers.tokens.view(-1)[tensor(columns.filled_from)]
    return ForwardBatch(
        tokens=tokens,
        positions=tensor(columns.positions),
        layouts=tuple(
            attention_layout([piece.rows[group] for piece in pieces], geometry.page_size, device)
            for group in groups
        ),
        written=tensor(columns.written),
        written_to=tuple(tensor(places) for places in stored),
        canvases=tensor([canvases[row.slot] for row in canvas_rows]).view(-1, geometry.block_length),
        slots=tensor([row.slot for row in canvas_rows]),
    )


def _add(
    piece: Piece,
    columns: _Columns,
    stored: Sequence[list[int]],
    canvases: dict[int, list[int]],
    geometry: Geometry,
) -> None:
    at, block = len(columns.tokens), geometry.block_length
    columns.tokens.extend(piece.tokens)
    columns.positions.extend(piece.positions)
    if piece.stored:
        columns.written.extend(range(at, at + piece.length))
        for places, of_group in zip(stored, piece.stored, strict=True):
            places.extend(of_group)
    if piece.canvas_start is None:
        return
    canvas = canvases[piece.slot]
    for index, position in enumerate(piece.positions, start=at):
        offset = position - piece.canvas_start
        if 0 <= offset < block:
            columns.filled.append(index)
            columns.filled_from.append(piece.slot * block + offset)
        if 0 <= offset + geometry.shift < block:
            canvas[offset + geometry.shift] = index
