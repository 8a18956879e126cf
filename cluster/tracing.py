"""One process's way to make spans and have them exported, or to make none at almost no cost.

The SDK's own provider is used, not the process-wide one, which belongs to whoever embeds Easel.
"""

import contextvars
import threading
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.trace import NoOpTracer, Span, SpanContext, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from easel.cluster.config_sections import TelemetrySection
from easel.cluster.errors import ConfigError
from easel.cluster.log_format import REQUEST_ID

STOP_SECONDS = 1.5  # for what is left to be exported when the process ends
MAX_EVENTS = 1024  # of a span; an answer of more blocks shows its last ones
_QUEUE = 4096  # spans that wait to be exported; beyond them the oldest are dropped
_BATCH = 512
_DELAY_MS = 1000.0
_EXPORT_SECONDS = 5.0  # all attempts at one batch together
_TRACES_PATH = "/v1/traces"


class Stoppable(Protocol):
    """A provider or an exporter."""

    def shutdown(self) -> None:
        """May block for long; a provider's exports what is left."""
        ...


@dataclass(frozen=True, slots=True)
class Tracing:
    """A tracer, and what exports its spans. Without the latter its spans record nothing."""

    tracer: Tracer = field(default_factory=NoOpTracer)
    provider: Stoppable | None = None
    exporter: Stoppable | None = None

    @property
    def enabled(self) -> bool:
        return self.provider is not None

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Export what is left, for at most so long, and make no more spans."""
        if self.provider is None or self.exporter is None:
            return
        ending = threading.Thread(target=self.provider.shutdown, name="easel-traces-end", daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            self.exporter.shutdown()  # ends its retries, which would go on for seconds


def start_tracing(section: TelemetrySection, process: str, instance: str) -> Tracing:
    """Spans of a kind of process (gateway, scheduler or worker) go to the section's collector.

    Without an endpoint none are made. A collector that is away costs spans, never a request: a
    bounded queue and a thread of its own are between the two. Raises ConfigError.
    """
    if section.otlp_endpoint is None:
        return Tracing()
    # The SDK takes a tenth of a second to import, which only those who use it should pay.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

    exporter = OTLPSpanExporter(
        endpoint=traces_url(section.otlp_endpoint),
        headers=headers_of(section.otlp_headers),
        timeout=_EXPORT_SECONDS,
    )
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(section.sample_ratio),
        resource=Resource.create(_resource(section, process, instance)),
        span_limits=SpanLimits(max_events=MAX_EVENTS),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=_QUEUE,
            max_export_batch_size=_BATCH,
            schedule_delay_millis=_DELAY_MS,
        )
    )
    return Tracing(provider.get_tracer("easel"), provider, exporter)


def check_collector(section: TelemetrySection) -> None:
    """Raises ConfigError for an address or headers that cannot be used; better before anything is started."""
    if section.otlp_endpoint is not None:
        traces_url(section.otlp_endpoint)
        headers_of(section.otlp_headers)


def traces_url(endpoint: str) -> str:
    """The collector's address for traces; a base URL such as http://collector:4318 will do.

    Raises ConfigError for what is no HTTP URL.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = "it must be an http:// or https:// URL, such as http://collector:4318"
        raise ConfigError("telemetry.otlp_endpoint", f"it is {endpoint!r}; {problem}.")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_TRACES_PATH) else path + _TRACES_PATH).geturl()


def headers_of(text: str) -> dict[str, str]:
    """`name=value,name=value`, values percent-encoded, as OpenTelemetry's variables have it.

    Raises ConfigError, which does not repeat the text: it may hold a key.
    """
    headers: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = part.partition("=")
        if not separator or not name.strip():
            raise ConfigError("telemetry.otlp_headers", "each must be name=value; separate them by commas.")
        headers[name.strip().lower()] = unquote(value.strip())
    return headers


def traceparent_of(span: Span) -> str:
    """The span as a W3C `traceparent`; "" for one that belongs to no trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current_traceparent() -> str:
    """Of the span in whose course this is called; "" outside of any."""
    return traceparent_of(trace.get_current_span())


def current_trace_id() -> str | None:
    """32 hexadecimal digits, or None outside of any trace."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def parent_context(traceparent: str, tracestate: str = "") -> Context:
    """The context of spans whose parent is that; a `traceparent` that is none gives an empty one."""
    carrier = {"traceparent": traceparent} | ({"tracestate": tracestate} if tracestate else {})
    return TraceContextTextMapPropagator().extract(carrier, Context()) if traceparent else Context()


def span_context_of(traceparent: str) -> SpanContext:
    """What a link points to."""
    return trace.get_current_span(parent_context(traceparent)).get_span_context()


def task_context(traceparent: str, request_id: str) -> contextvars.Context:
    """For `asyncio.create_task`: a task that works for a request, in the course of the span that is named.

    Another process may have made that span. Without one the task belongs to no trace.
    """
    context = contextvars.Context()
    context.run(REQUEST_ID.set, request_id)
    current = trace.get_current_span()
    if traceparent and traceparent_of(current) == traceparent:
        context.run(attach, trace.set_span_in_context(current, Context()))  # it can still be added to
    elif traceparent:
        context.run(attach, parent_context(traceparent))
    return context


def _resource(section: TelemetrySection, process: str, instance: str) -> dict[str, Any]:
    return {
        "service.name": section.service_name,
        "service.instance.id": instance,
        "easel.process": process,
    }
