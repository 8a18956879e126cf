"""A collector that takes OTLP over HTTP and keeps the spans it gets."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """What a collector is told of one span; ids in hexadecimal digits, "" for no parent."""

    process: str
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    seconds: float
    attributes: dict[str, Value]
    events: list[tuple[str, dict[str, Value]]]
    links: list[str]  # ids of the spans they lead to
    failed: bool


@dataclass(slots=True)
class Collector:
    """Use `url` as the endpoint."""

    url: str
    spans: list[ReceivedSpan] = field(default_factory=list[ReceivedSpan])
    headers: dict[str, str] = field(default_factory=dict[str, str])  # of the last request
    news: Condition = field(default_factory=Condition)

    def of_trace(self, trace_id: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def wait_for(self, met: Callable[[], bool], seconds: float = 10.0) -> None:
        """Until that is true of the spans; fails when it takes too long."""
        with self.news:
            assert self.news.wait_for(met, seconds), [(span.process, span.name) for span in self.spans]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self.news:
            for resource_spans in request.resource_spans:
                resource = values_of(resource_spans.resource.attributes)
                for scope_spans in resource_spans.scope_spans:
                    self.spans.extend(_received(resource, span) for span in scope_spans.spans)
            self.news.notify_all()


@contextmanager
def collecting() -> Generator[Collector]:
    """A collector on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.headers = {name.lower(): value for name, value in self.headers.items()}
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield collector
        server.shutdown()
        thread.join()


def values_of(attributes: Iterable[KeyValue]) -> dict[str, Value]:
    """Plain Python values."""
    found: dict[str, Value] = {}
    for attribute in attributes:
        found[attribute.key] = _value(attribute.value)
    return found


def _value(value: AnyValue) -> Value:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bool_value":
            return value.bool_value
        case _:
            return tuple(one.string_value for one in value.array_value.values)


def _received(resource: dict[str, Value], span: Span) -> ReceivedSpan:
    return ReceivedSpan(
        process=str(resource["easel.process"]),
        service=str(resource["service.name"]),
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=values_of(span.attributes),
        events=[(event.name, values_of(event.attributes)) for event in span.events],
        links=[link.span_id.hex() for link in span.links],
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
    )
