"""Rows of batch plans, written by hand."""

from easel.scheduler.messages import BatchPlan, CanvasSpec, Row
from easel.scheduler.phase import RowKind
from easel.scheduler.request import DiffusionParams, SamplingParams


def plan(*rows: Row) -> BatchPlan:
    return BatchPlan(rows)


def write(
    slot: int, start: int, tokens: tuple[int, ...], pages: tuple[int, ...], kind: RowKind = RowKind.PREFILL
) -> Row:
    return Row(kind, f"r{slot}", slot, start, len(tokens), pages, tokens)


def opening(
    slot: int, start: int, length: int, pages: tuple[int, ...], spec: CanvasSpec | None = None
) -> Row:
    spec = spec or canvas(length)
    return Row(RowKind.OPEN, f"r{slot}", slot, start, length, pages, canvas=spec, canvas_start=start)


def reuse(slot: int, start: int, length: int, pages: tuple[int, ...]) -> Row:
    return Row(RowKind.REUSE, f"r{slot}", slot, start, length, pages, canvas_start=start)


def canvas(
    limit: int,
    *,
    known: tuple[int, ...] = (),
    block_index: int = 0,
    sampling: SamplingParams | None = None,
    diffusion: DiffusionParams | None = None,
    snapshots: bool = False,
) -> CanvasSpec:
    return CanvasSpec(
        block_index=block_index,
        known=known,
        limit=limit,
        sampling=sampling or SamplingParams(),
        diffusion=diffusion or DiffusionParams(),
        snapshots=snapshots,
    )
