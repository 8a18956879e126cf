"""One span and one line of log for each request for an answer, from its first byte to its last."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easel.cluster.gateway.answer_run import AnswerRun
from easel.cluster.gateway.choice import Choice
from easel.cluster.gateway.metrics import CLIENT_GONE, GENERATION_PATHS
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.cluster.log_format import REQUEST_ID
from easel.cluster.telemetry import Telemetry
from easel.cluster.tracing import parent_context, span_context_of, traceparent_of

LOGGER = logging.getLogger("easel.gateway.requests")
OPERATIONS = {"/v1/completions": "text_completion"}  # the others are chats
SERVER_ERRORS = 500


@dataclass(slots=True)
class Exchange:
    """One HTTP request and its answer, as far as they have come."""

    path: str
    began: float
    status: str = CLIENT_GONE
    first_chunk: float | None = None  # when the first part of the body was sent
    run: AnswerRun | None = None  # the answer it is about, once that is known
    error: str = ""  # of the answer, or one that nobody explained


class RequestSpanMiddleware:
    """Makes the span current for all that is done for the request, and names it to the client.

    Whoever begins or joins an answer for the request puts its AnswerRun into the request's state
    as `run`. A request without a valid key has no span.
    """

    def __init__(
        self, app: ASGIApp, telemetry: Telemetry, clock: Callable[[], float], tokenizer: ChatTokenizer
    ) -> None:
        self.app = app
        self.tracing = telemetry.tracing
        self.log_prompts = telemetry.section.log_prompts
        self.clock = clock
        self.tokenizer = tokenizer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in GENERATION_PATHS or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope["path"], self.clock())
        span = self._span(scope)
        traceparent = traceparent_of(span)

        async def watching_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = str(message["status"])
                if traceparent:
                    MutableHeaders(scope=message)["traceparent"] = traceparent
            elif exchange.first_chunk is None:
                exchange.first_chunk = self.clock()
            await send(message)

        with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            try:
                await self.app(scope, receive, watching_send)
            except Exception as error:  # noted; the handlers outside answer the client
                exchange.error = type(error).__name__
                raise
            finally:
                exchange.run = scope.get("state", {}).get("run")
                self._end(span, exchange)

    def _span(self, scope: Scope) -> Span:
        parent = parent_context("")
        if self.tracing.enabled:
            headers = Headers(scope=scope)
            given = headers.getlist("traceparent")
            # Several are as good as none, says W3C.
            if len(given) == 1:
                parent = parent_context(given[0], ",".join(headers.getlist("tracestate")))
        name = OPERATIONS.get(scope["path"], "chat")
        return self.tracing.tracer.start_span(name, parent, SpanKind.SERVER)

    def _end(self, span: Span, exchange: Exchange) -> None:
        run = exchange.run
        if run is not None and run.log.error is not None:
            exchange.error = type(run.log.error).__name__
        if span.is_recording():
            span.set_attributes(http_attributes(exchange))
            if run is not None:
                name = OPERATIONS.get(exchange.path, "chat")
                span.update_name(f"{name} {run.content.model}")
                span.set_attributes(answer_attributes(run))
                self._link(span, run)
            if exchange.error or int(exchange.status) >= SERVER_ERRORS:
                span.set_attribute("error.type", exchange.error or exchange.status)
                span.set_status(StatusCode.ERROR)
        if LOGGER.isEnabledFor(logging.INFO):
            self._log(exchange)
        span.end()

    def _link(self, span: Span, run: AnswerRun) -> None:
        """To the request that began the answer, if it was another one."""
        began = span_context_of(run.content.traceparent)
        if began.is_valid and began.span_id != span.get_span_context().span_id:
            span.add_link(began)

    def _log(self, exchange: Exchange) -> None:
        seconds = round(self.clock() - exchange.began, 6)
        fields: dict[str, object] = {"path": exchange.path, "status": exchange.status, "seconds": seconds}
        if exchange.error:
            fields["failed_with"] = exchange.error
        run = exchange.run
        if run is not None:
            REQUEST_ID.set(run.record.answer_id)
            choices = run.log.choices
            fields |= {"tenant": run.record.tenant, "prompt_tokens": prompt_tokens(run), **sums(choices)}
            if self.log_prompts:
                requests = run.content.requests[:: run.content.choices_per_prompt]
                fields["prompts"] = [self.tokenizer.decode(request.prompt) for request in requests]
                fields["answers"] = [choice.text for choice in choices]
        LOGGER.info("answered", extra=fields)


def http_attributes(exchange: Exchange) -> dict[str, AttributeValue]:
    """What can be said of any request."""
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": OPERATIONS.get(exchange.path, "chat"),
        "gen_ai.provider.name": "easel",
        "http.route": exchange.path,
    }
    if exchange.status != CLIENT_GONE:
        attributes["http.response.status_code"] = int(exchange.status)
    if exchange.first_chunk is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = exchange.first_chunk - exchange.began
    return attributes


def answer_attributes(run: AnswerRun) -> dict[str, AttributeValue]:
    """What was asked for, and what it came to so far."""
    content, choices = run.content, run.log.choices
    sampling = content.requests[0].sampling
    blocks = [event for choice in choices for event in choice.events]
    attributes: dict[str, AttributeValue] = {
        "gen_ai.request.model": content.model,
        "gen_ai.response.model": content.model,
        "gen_ai.response.id": run.record.answer_id,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.seed": content.seed,
        "gen_ai.response.finish_reasons": [one.finish.value for one in choices if one.finish is not None],
        "gen_ai.usage.input_tokens": prompt_tokens(run),
        "gen_ai.usage.output_tokens": sum(len(event.tokens) for event in blocks),
        "easel.blocks": len(blocks),
        "easel.steps": sum(event.steps for event in blocks),
    }
    return attributes | {name: value for name, value in _unusual(run).items() if value}


def _unusual(run: AnswerRun) -> dict[str, AttributeValue]:
    """What is said only where there is something to say: attributes are most of what a span costs."""
    first, choices = run.content.requests[0], run.log.choices
    return {
        "gen_ai.request.choice.count": len(choices) if len(choices) > 1 else 0,
        "gen_ai.request.top_p": first.sampling.top_p if first.sampling.top_p < 1.0 else 0.0,
        "gen_ai.request.top_k": float(first.sampling.top_k),
        "gen_ai.usage.cache_read.input_tokens": cached_tokens(choices),
        "easel.tenant": run.record.tenant,
        "easel.priority": int(first.priority),
        "easel.answer.background": run.record.background,
        "easel.answer.resumed_blocks": sum(choice.resumed for choice in choices),
    }


def prompt_tokens(run: AnswerRun) -> int:
    """Each prompt once, however many choices it has."""
    return sum(len(one.prompt) for one in run.content.requests[:: run.content.choices_per_prompt])


def cached_tokens(choices: Sequence[Choice]) -> int:
    """Of all choices."""
    return sum(choice.events[0].cached_tokens for choice in choices if choice.events)


def sums(choices: Sequence[Choice]) -> dict[str, object]:
    """For the log."""
    blocks = [event for choice in choices for event in choice.events]
    return {
        "output_tokens": sum(len(event.tokens) for event in blocks),
        "blocks": len(blocks),
        "steps": sum(event.steps for event in blocks),
        "finish": [None if choice.finish is None else choice.finish.value for choice in choices],
    }
