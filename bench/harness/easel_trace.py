"""The trace that `easel simulate` replays, from a load on an Easel cluster."""

from collections.abc import Sequence
from typing import Any

from easel.bench.harness.errors import NoServer
from easel.bench.harness.records import Record
from easel.scheduler.messages import CostCoefficients
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.trace import BlockTrace, RequestTrace, Trace, TraceHeader


def trace_of(url: str, health: dict[str, Any], records: Sequence[Record]) -> Trace:
    """Answered requests, from when each was sent. Raises NoServer where answers tell no blocks."""
    requests = [request_trace(record) for record in records if record.answered and _whole(record)]
    if not requests:
        raise NoServer(url, "its answers carry no `diffusion` object, so there is no trace to record")
    return Trace(header_of(health), tuple(sorted(requests, key=lambda request: request.arrival)))


def _whole(record: Record) -> bool:
    return (
        record.canvases is not None
        and record.tokens is not None
        and 0 < len(record.canvases.blocks) == len(record.chunks)
    )


def request_trace(record: Record) -> RequestTrace:
    """One line of the trace. Raises ValueError where the record tells no blocks."""
    if record.canvases is None or record.tokens is None:
        raise ValueError(f"request {record.number} tells no blocks")
    blocks = tuple(
        BlockTrace(round(at, 6), block.steps, block.tokens, block.seconds)
        for at, block in zip(record.chunks, record.canvases.blocks, strict=True)
    )
    return RequestTrace(
        request_id=f"request-{record.number}" + (f"-{record.turn}" if record.turn else ""),
        arrival=round(record.sent, 6),
        prompt_tokens=record.tokens.prompt,
        max_tokens=record.max_tokens or record.tokens.output,
        blocks=blocks,
        queue_seconds=record.canvases.queue_seconds,
        prefill_seconds=record.canvases.prefill_seconds,
        cached_tokens=record.canvases.cached_tokens,
        client=record.client,
        correct=record.correct,
    )


def header_of(health: dict[str, Any]) -> TraceHeader:
    """What /health says of the cluster; a fitted cost only where replicas report one."""
    loads: list[dict[str, Any]] = list(health.get("load", {}).values())
    first = loads[0] if loads else {}
    costs = [tuple(map(float, load["cost"])) for load in loads if "cost" in load]
    block = int(first.get("block_length", 32))
    return TraceHeader(
        replicas=max(1, len(loads)),
        slots=int(first.get("slots", 16)),
        pages=int(first.get("pages", 1024)),
        page_size=int(first.get("page_size", block)),
        block_length=block,
        layout=SequenceLayout(first.get("layout", SequenceLayout.BLOCK_CAUSAL)),
        cost=_mean(costs) if costs else None,
        cost_error=max((float(load.get("cost_error", 0.0)) for load in loads), default=0.0),
        model=str(health.get("model", "")),
    )


def _mean(costs: Sequence[tuple[float, ...]]) -> CostCoefficients:
    return CostCoefficients(*(sum(column) / len(costs) for column in zip(*costs, strict=True)))
