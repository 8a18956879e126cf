"""What the gateway counts, for /metrics; see metric_names for what each count means."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easel.cluster.errors import NoReplica, RetriesExhausted, SchedulerLost
from easel.cluster.gateway import metric_names as names
from easel.cluster.gateway.metric_names import MetricSpec
from easel.cluster.gateway.shared_counts import merged, share_counts
from easel.scheduler.errors import DeadlineImpossible, Draining, QueueFull, RequestTooLong, TenantLimit
from easel.scheduler.messages import BlockEvent

GENERATION_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})
PATHS = GENERATION_PATHS | {"/", "/v1/models", "/health", "/ready", "/metrics", "/cluster", "/-/healthz"}
RESPONSE_PATH = re.compile(r"/v1/responses/[^/]+(?P<action>/cancel)?")
PREFIXES = {"/ui/": "/ui/{file}", "/cluster/requests/": "/cluster/requests/{id}"}
CLIENT_GONE = "499"
REFUSALS: dict[type[Exception], str] = {
    QueueFull: "queue_full",
    TenantLimit: "tenant_limit",
    DeadlineImpossible: "deadline",
    RequestTooLong: "too_long",
    Draining: "draining",
    NoReplica: "no_replica",
    SchedulerLost: "no_scheduler",
    RetriesExhausted: "retries_exhausted",
}
REASONS_TO_MOVE = ("replica_lost", "handed_over", "refused")  # those of PlacementWatch.left


class GatewayMetrics:
    """The gateway's counters and histograms.

    The `vllm:diffusion_…` names are those that `vllm bench serve` reads. With `shared`, a folder,
    all processes that have the same one show the sums of what they count; that is for the life of
    the process, so there is one such object in it.
    """

    def __init__(self, clock: Callable[[], float], block_length: int, shared: Path | None = None) -> None:
        self.clock = clock
        self.block_length = block_length
        self.registry = CollectorRegistry()
        self._shared = shared
        if shared is not None:
            share_counts(shared)
        self.requests = self._counter(names.REQUESTS)
        self.in_flight = Gauge(
            names.IN_FLIGHT.name,
            names.IN_FLIGHT.meaning,
            registry=self.registry,
            multiprocess_mode="livesum",  # what a process that died had in flight is not any more
        )
        self.cancelled = self._counter(names.CANCELLED)
        self.refused = self._counter(names.REFUSED)
        self.moved = self._counter(names.MOVED)
        for reason in REFUSALS.values():
            self.refused.labels(reason)  # a count that begins at nothing has no rate
        for reason in REASONS_TO_MOVE:
            self.moved.labels(reason)
        self.prompt_tokens = self._counter(names.PROMPT_TOKENS)
        self.cached_tokens = self._counter(names.CACHED_TOKENS)
        self.output_tokens = self._counter(names.OUTPUT_TOKENS)
        self.blocks = self._counter(names.BLOCKS)
        self.steps = self._counter(names.STEPS_TAKEN)
        self.first_block = self._histogram(names.FIRST_BLOCK)
        self.block_gap = self._histogram(names.BLOCK_GAP)
        self.duration = self._histogram(names.DURATION)
        self.queue = self._histogram(names.QUEUE)
        self.steps_per_block = self._histogram(names.STEPS_PER_BLOCK)
        self.tokens_per_forward = self._histogram(names.TOKENS_PER_FORWARD)
        self.denoising_steps = self._counter(names.VLLM_STEPS)
        self.canvas_positions = self._counter(names.VLLM_POSITIONS)
        self.committed_tokens = self._counter(names.VLLM_TOKENS)

    def watch(self, *, resumed: bool = False) -> "BlockWatch":
        """A watch for one choice that begins now, or is resumed: its first block has been counted."""
        return BlockWatch(self, self.clock(), resumed)

    def families(self) -> Iterable[Metric]:
        """All that is counted here, or by all processes that share their counts."""
        return self.registry.collect() if self._shared is None else merged(self._shared)

    def exposition(self, others: Iterable[Metric] = ()) -> bytes:
        """The text that Prometheus scrapes, with what others say."""
        return generate_latest(_Families((*self.families(), *others)))

    def refuse(self, error: Exception) -> None:
        """An answer failed; it is counted if the cluster did not take it."""
        if type(error) in REFUSALS:
            self.refused.labels(REFUSALS[type(error)]).inc()

    def count_block(self, event: BlockEvent) -> None:
        tokens, steps = len(event.tokens), event.steps
        self.blocks.inc()
        self.steps.inc(steps)
        self.output_tokens.inc(tokens)
        self.steps_per_block.observe(steps)
        self.tokens_per_forward.observe(tokens / max(1, steps))
        # vLLM commits in a forward of its own and counts it; its tools take that off again, by tokens.
        self.denoising_steps.inc(steps + tokens / self.block_length)
        self.canvas_positions.inc(steps * self.block_length + tokens)
        self.committed_tokens.inc(tokens)

    def _counter(self, spec: MetricSpec) -> Counter:
        return Counter(spec.name, spec.meaning, spec.labels, registry=self.registry)

    def _histogram(self, spec: MetricSpec) -> Histogram:
        return Histogram(spec.name, spec.meaning, buckets=spec.buckets, registry=self.registry)


@dataclass(frozen=True, slots=True)
class _Families(Collector):
    """What has been collected already."""

    metrics: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


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
        began = scope.setdefault("state", {})["received"] = self.metrics.clock()
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
    return next((name for prefix, name in PREFIXES.items() if path.startswith(prefix)), "other")
