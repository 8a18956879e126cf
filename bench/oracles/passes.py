"""What an engine computes, in the form in which the oracles give theirs: logits, and generations."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.bench.oracles.masked import Generation
from easel.scheduler.messages import BatchPlan, BlockEvent, CanvasSpec, Row
from easel.scheduler.phase import RowKind
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.batch import build_batch
from easel.worker.engine import Engine
from easel.worker.renoise import SoftcappedHead


def engine_logits(engine: Engine, tokens: Sequence[int], chunk: int | None = None) -> Tensor:
    """[tokens, vocabulary] float32 of whole blocks, of which the last one is a canvas.

    With a shared prefix the blocks before are encoded `chunk` tokens at a time, each chunk and the
    canvas in a forward of its own; without `chunk`, all in one forward. Slot 0 and the first pages
    are used, so the engine must be idle.
    """
    shape = engine.shape
    start = len(tokens) - shape.block_length
    pages = tuple(reversed(range(-(-len(tokens) // shape.page_size))))
    spec = CanvasSpec(0, tuple(tokens[start:]), shape.block_length, SamplingParams(), DiffusionParams())
    if not shape.layout.shares_prefix:
        span = len(tokens)
        row = Row(
            RowKind.OPEN, "", 0, 0, span, pages, tuple(tokens[:start]), spec, canvas_start=start, span=span
        )
        return _forward(engine, [row])
    size, window_pages = chunk or max(start, 1), pages if shape.window else ()
    rows = [
        Row(RowKind.PREFILL, "", 0, at, len(part), pages, tuple(part), window_pages=window_pages)
        for at in range(0, start, size)
        for part in [tokens[at : min(at + size, start)]]
    ]
    rows.append(
        Row(
            RowKind.OPEN,
            "",
            0,
            start,
            shape.block_length,
            pages,
            canvas=spec,
            canvas_start=start,
            window_pages=window_pages,
        )
    )
    if chunk is None:
        return _forward(engine, rows)
    return torch.cat([_forward(engine, [row]) for row in rows])


def run_requests(engine: Engine, requests: Iterable[Request]) -> dict[str, Generation]:
    """What each request came to, all submitted at once."""
    for request in requests:
        engine.submit(request)
    found: dict[str, Generation] = {}
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, BlockEvent):
                before = found.get(event.request_id, Generation((), (), None))
                found[event.request_id] = Generation(
                    (*before.blocks, event.tokens), (*before.steps, event.steps), event.finish
                )
    engine.check()
    return found


@torch.inference_mode()
def _forward(engine: Engine, rows: Sequence[Row]) -> Tensor:
    """Logits of all the rows' tokens in order of position; the rows' positions must be distinct."""
    runner = engine.runner
    for row in rows:
        if row.canvas is not None:
            runner.machine.registers.open(row.slot, row.canvas)
    batch = build_batch(
        BatchPlan(tuple(rows)), runner.machine.registers, runner.geometry, runner.machine.model.head.device
    )
    batch.fill(runner.machine.registers)
    hidden = runner.machine.model.forward(
        batch, runner.machine.cache, runner.machine.denoiser.conditioning(batch.slots)
    )
    logits = F.linear(hidden, runner.machine.model.head).float()[batch.positions.argsort()]
    if isinstance(runner.machine.model, SoftcappedHead):
        return (logits / runner.machine.model.softcap).tanh() * runner.machine.model.softcap
    return logits
