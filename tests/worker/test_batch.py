"""A plan's rows become ragged tokens, each with its position, its store token, and who sees what."""

from dataclasses import replace

import torch

from easel.kernels.attention import RowGroup
from easel.scheduler.messages import BatchPlan
from easel.scheduler.phase import RowKind, SequenceLayout
from easel.worker.batch import ForwardBatch, build_batch
from easel.worker.pieces import Geometry
from easel.worker.registers import CanvasRegisters
from tests.worker.rows import canvas, opening, plan, reuse, write
from tests.worker.values import ints

BLOCK = 4
MASK = 0
CPU = torch.device("cpu")
GEOMETRY = Geometry(SequenceLayout.BLOCK_CAUSAL, BLOCK, page_size=BLOCK, mask_token_id=MASK)


def test_a_chunk_of_several_blocks_becomes_blocks_that_read_the_ones_before() -> None:
    batch = _build(plan(write(0, 4, tuple(range(10, 22)), pages=(5, 2, 7, 1))))
    assert batch.tokens.tolist() == list(range(10, 22))
    assert batch.positions.tolist() == list(range(4, 16))
    assert _prefixes(batch) == [4, 8, 12]
    assert batch.written.tolist() == list(range(12))
    assert batch.written_to[0].tolist() == [*_tokens_of_page(2), *_tokens_of_page(7), *_tokens_of_page(1)]
    assert batch.canvases.shape == (0, BLOCK)


def test_several_blocks_share_a_page_that_is_larger() -> None:
    batch = _build(plan(write(0, 4, tuple(range(10, 18)), pages=(5, 2))), page_size=2 * BLOCK)
    assert batch.written_to[0].tolist() == [44, 45, 46, 47, 16, 17, 18, 19]
    assert torch.equal(batch.places[0], batch.written_to[0])


def test_canvas_tokens_come_from_the_registers_of_their_slots() -> None:
    registers = _registers()
    registers.open(2, canvas(BLOCK, known=(8, 9)))
    registers.open(1, canvas(BLOCK, known=(7,)))
    batch = _build(plan(reuse(2, 0, BLOCK, ()), reuse(1, 0, BLOCK, ())), registers)
    assert batch.tokens[batch.canvases].tolist() == [[8, 9, MASK, MASK], [7, MASK, MASK, MASK]]
    assert batch.written.numel() == 0
    assert batch.written_to[0].numel() == 0
    assert ints(batch.places[0]) == [-1] * 2 * BLOCK


def test_canvases_keep_the_plans_order_though_blocks_are_sorted_by_prefix() -> None:
    registers = _registers()
    for slot in range(3):
        registers.open(slot, canvas(BLOCK, known=(20 + slot,)))
    batch = _build(
        plan(
            write(0, 8, (1, 2, 3, 4), pages=(0, 1, 2), kind=RowKind.COMMIT),
            write(3, 0, (5, 6, 7, 8), pages=(9,)),
            opening(0, 12, BLOCK, pages=(0, 1, 2)),
            reuse(2, 0, BLOCK, ()),
            reuse(1, 8, BLOCK, pages=(3, 4)),
        ),
        registers,
    )
    prefixes = _prefixes(batch)
    assert prefixes == sorted(prefixes)
    assert batch.tokens[batch.canvases][:, 0].tolist() == [20, 22, 21]
    assert batch.positions[batch.canvases][:, 0].tolist() == [12, 0, 8]
    written = dict(zip(ints(batch.written_to[0]), ints(batch.tokens[batch.written]), strict=True))
    assert written == {8: 1, 9: 2, 10: 3, 11: 4, 36: 5, 37: 6, 38: 7, 39: 8}


def test_an_opening_attends_to_what_the_commit_beside_it_writes() -> None:
    registers = _registers()
    registers.open(0, canvas(BLOCK))
    batch = _build(
        plan(write(0, 0, (1, 2, 3, 4), pages=(6,), kind=RowKind.COMMIT), opening(0, 4, BLOCK, pages=(6,))),
        registers,
    )
    group = batch.layouts[0].groups[-1]
    assert group.keys is not None
    assert ints(group.keys)[:BLOCK] == ints(batch.written_to[0]) == _tokens_of_page(6)


def _build(of: BatchPlan, registers: CanvasRegisters | None = None, page_size: int = BLOCK) -> ForwardBatch:
    geometry = replace(GEOMETRY, page_size=page_size)
    held = registers or _registers()
    batch = build_batch(of, held, geometry, CPU)
    batch.fill(held)
    return batch


def _registers() -> CanvasRegisters:
    return CanvasRegisters.allocate(4, BLOCK, MASK, CPU)


def _tokens_of_page(page: int) -> list[int]:
    return list(range(page * BLOCK, (page + 1) * BLOCK))


def _prefixes(batch: ForwardBatch) -> list[int]:
    """Prefix of every block of the layout, in its order."""
    return [prefix for group in batch.layouts[0].groups for prefix in _prefixes_of(group)]


def _prefixes_of(group: RowGroup) -> list[int]:
    if group.keys is None:
        return [0] * group.rows
    padded = group.keys.numel() // group.rows - group.length
    if group.mask is None:
        return [padded] * group.rows
    return ints(group.mask[:, 0, 0, :padded].sum(-1))
