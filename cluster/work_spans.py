"""Spans of a request's way through the cluster: placed, and run at a replica.

There are few of them, and a block is an event: in Python a span costs as much as a small forward.

Each is used as a context manager around the work. A span that is not recorded costs a comparison.
"""

import math
import time
from asyncio import CancelledError
from contextvars import Token
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

from easel.cluster import span_names as names
from easel.cluster.log_format import REQUEST_ID
from easel.cluster.tracing import Tracing, parent_context
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, GenerationTask, Placement
from easel.scheduler.request import FinishReason

_LEAVING = (CancelledError, GeneratorExit)  # the client is gone, or the work is somebody else's
_CLOSED = "closed"


class WorkSpan:
    """A span that ends with its block, and says so when that fails."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._recorded = span.is_recording()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if not self._recorded:
            return
        self._conclude(left=kind is not None and issubclass(kind, _LEAVING))
        if error is not None and not isinstance(error, _LEAVING):
            # The error's text may repeat what a client sent.
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _conclude(self, *, left: bool) -> None:
        """What is known only at the end. `left`: nobody waits for the outcome."""


class PlacementSpan(WorkSpan):
    """The scheduler's part: the wait for room in it. What is logged meanwhile names the request."""

    def __init__(self, tracing: Tracing, ticket: AdmissionTicket, waiting: int) -> None:
        context = parent_context(ticket.traceparent)
        super().__init__(tracing.tracer.start_span(names.PLACE, context, SpanKind.SERVER))
        self._request_id = ticket.request_id
        self._tokens: tuple[Token[str], Token[Context]] | None = None
        if self._recorded:
            self._span.set_attributes(
                {
                    "easel.request.id": ticket.request_id,
                    "easel.waiting": waiting,
                }
            )

    def __enter__(self) -> Self:
        self._tokens = REQUEST_ID.set(self._request_id), attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._tokens is not None:
            REQUEST_ID.reset(self._tokens[0])
            detach(self._tokens[1])
        super().__exit__(kind, error, _)

    def placed(self, placement: Placement) -> Placement:
        """A replica and a lease were found. Returns what it is given."""
        if self._recorded:
            self._span.set_attribute("easel.replica", placement.replica_id)
            self._span.set_attribute("easel.lease_epoch", placement.lease_epoch)
        return placement


class GenerationSpan(WorkSpan):
    """A choice's stay at a replica, with its queue, its prefill, and an event for each block."""

    def __init__(self, tracing: Tracing, task: GenerationTask, replica_id: str) -> None:
        context = parent_context(task.traceparent)
        self._began_ns = time.time_ns()
        super().__init__(tracing.tracer.start_span(names.GENERATE, context, SpanKind.SERVER))
        self._blocks = self._steps = self._tokens = 0
        self._last: BlockEvent | None = None  # block
        self._finish: FinishReason | None = None
        if self._recorded:
            self._span.set_attributes(
                {"easel.request.id": task.request.request_id, "easel.replica": replica_id}
            )

    def take(self, event: BlockEvent | CanvasSnapshot) -> None:
        """One of the request's events, on its way to the gateway."""
        if not self._recorded or not isinstance(event, BlockEvent):
            return
        self._finish = event.finish
        if event.block_index < 0:
            return
        if self._last is None:
            self._began_to_denoise(event)
        self._last = event
        self._blocks += 1
        self._steps += event.steps
        self._tokens += len(event.tokens)
        self._span.add_event(names.BLOCK, _attributes_of(event))

    def _began_to_denoise(self, event: BlockEvent) -> None:
        """The first block tells when the request got a slot, and when its first canvas opened."""
        slot_ns = self._began_ns + int(event.queue_seconds * 1e9)
        canvas_ns = slot_ns + int(event.prefill_seconds * 1e9)
        self._span.add_event(names.SLOT, {"easel.queue.seconds": event.queue_seconds}, slot_ns)
        prefill: dict[str, float | int] = {
            "easel.prefill.seconds": event.prefill_seconds,
            "easel.cached_tokens": event.cached_tokens,
        }
        self._span.add_event(names.CANVAS, prefill, canvas_ns)

    def _conclude(self, *, left: bool) -> None:
        if self._finish is not None:
            self._span.set_attribute("easel.finish", self._finish.value)
        elif left:
            self._span.set_attribute("easel.finish", _CLOSED)
        self._span.set_attributes(
            {"easel.blocks": self._blocks, "easel.steps": self._steps, "easel.tokens": self._tokens}
        )
        if self._last is not None and self._last.preemptions:
            self._span.set_attribute("easel.preemptions", self._last.preemptions)


def note_move(placement: Placement, how: str) -> None:
    """An event of the current span: the request goes on elsewhere; see PlacementWatch.left."""
    span = trace.get_current_span()
    if span.is_recording():
        about = {"easel.request.id": placement.request_id, "easel.replica": placement.replica_id}
        span.add_event(names.MOVED, {**about, "easel.moved.reason": how})


def _attributes_of(event: BlockEvent) -> dict[str, float | int | bool]:
    attributes: dict[str, float | int | bool] = {
        "easel.block.index": event.block_index,
        "easel.block.steps": event.steps,
        "easel.block.tokens": len(event.tokens),
        "easel.block.seconds": event.seconds,
    }
    if event.tightened:
        attributes["easel.block.tightened"] = True
    if math.isfinite(event.mean_entropy):
        attributes["easel.block.mean_entropy"] = event.mean_entropy
    return attributes
