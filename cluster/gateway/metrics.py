"""What the gateway counts, for /metrics. Each application has its own registry."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easel.scheduler.messages import BlockEvent

GENERATION_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})
PATHS = GENERATION_PATHS | {"/v1/models", "/health", "/ready", "/metrics"}
RESPONSE_PATH = re.compile(r"/v1/responses/[^/]+(?P<action>/cancel)?")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CLIENT_GONE = "499"


class GatewayMetrics:
    """The gateway's counters and histograms.

    The `vllm:diffusion_…` names are those that `vllm bench serve` reads.
    """

    def __init__(self, clock: Callable[[], float], block_length: int) -> None:
        self.clock = clock
        self.block_length = block_length
        self.registry = CollectorRegistry()
        self.requests = self._counter("easel_requests", "HTTP requests answered", "path", "status")
        self.in_flight = Gauge("easel_requests_in_flight", "Generations running", registry=self.registry)
        self.cancelled = self._counter("easel_generations_cancelled", "Generations a client walked away from")
        self.prompt_tokens = self._counter("easel_prompt_tokens", "Prompt tokens of admitted choices")
        self.cached_tokens = self._counter("easel_cached_tokens", "Prompt tokens found in the prefix cache")
        self.output_tokens = self._counter("easel_output_tokens", "Output tokens of committed blocks")
        self.blocks = self._counter("easel_blocks", "Blocks committed")
        self.steps = self._counter("easel_steps", "Denoising steps of committed blocks")
        self.first_block = self._seconds("easel_time_to_first_block", "From the request to its first block")
        self.block_gap = self._seconds("easel_inter_block", "From one block of a choice to its next")
        self.duration = self._seconds("easel_request_duration", "From the request to the answer's end")
        self.queue = self._seconds("easel_queue", "From submission to a slot at a replica")
        self.denoising_steps = self._counter("vllm:diffusion_num_denoising_steps", "Same as easel_steps")
        self.canvas_positions = self._counter(
            "vllm:diffusion_num_canvas_positions", "Canvas positions computed, all steps"
        )
        self.committed_tokens = self._counter(
            "vllm:diffusion_num_committed_tokens", "Same as easel_output_tokens"
        )

    def watch(self, *, resumed: bool = False) -> "BlockWatch":
        """A watch for one choice that begins now, or is resumed: its first block has been counted."""
        return BlockWatch(self, self.clock(), resumed)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def count_block(self, event: BlockEvent) -> None:
        self.blocks.inc()
        self.steps.inc(event.steps)
        self.output_tokens.inc(len(event.tokens))
        self.denoising_steps.inc(event.steps)
        self.canvas_positions.inc(event.steps * self.block_length)
        self.committed_tokens.inc(len(event.tokens))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(f"{name}_seconds", text, buckets=SECONDS, registry=self.registry)


@dataclass(slots=True)
class BlockWatch:
    """Times the blocks of one choice."""

    metrics: GatewayMetrics
    last: float
    started: bool = False

    def block(self, event: BlockEvent) -> None:
        """Count one committed block."""
        now = self.metrics.clock()
        gap, self.last = now - self.last, now
        if self.started:
            self.metrics.block_gap.observe(gap)
        else:
            self.metrics.first_block.observe(gap)
            self.metrics.queue.observe(event.queue_seconds)
            self.metrics.cached_tokens.inc(event.cached_tokens)
            self.started = True
        self.metrics.count_block(event)


class MetricsMiddleware:
    """Counts answers by path and status. Paths that do not exist share one label."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = template_of(scope["path"])
        began = self.metrics.clock()
        status = CLIENT_GONE

        async def counting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, counting_send)
        finally:
            self.metrics.requests.labels(path, status).inc()
            if path in GENERATION_PATHS:
                self.metrics.duration.observe(self.metrics.clock() - began)


def template_of(path: str) -> str:
    """The route that a path belongs to, without ids, of which there is no end."""
    if path in PATHS:
        return path
    if (match := RESPONSE_PATH.fullmatch(path)) is not None:
        return "/v1/responses/{response_id}" + (match["action"] or "")
    return "other"
