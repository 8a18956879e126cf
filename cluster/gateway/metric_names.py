"""Every metric of /metrics: name, type, labels, meaning. Dashboards and docs are checked against it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from easel.scheduler.messages import STEP_BOUNDS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STEPS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0)
TOKENS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0)


class Kind(StrEnum):
    """Types of metrics, as Prometheus calls them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Scope(StrEnum):
    """Of what a value speaks."""

    GATEWAYS = "gateways"  # the gateway processes of one machine, together
    CLUSTER = "cluster"  # all of it; every gateway shows the same


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. Counters' names end in `_total`; histograms' have no ending of their own."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    scope: Scope = Scope.GATEWAYS
    buckets: tuple[float, ...] = ()  # upper bounds, without +Inf

    @property
    def exported(self) -> tuple[str, ...]:
        """Names of its samples, those that a query may use."""
        if self.kind is Kind.HISTOGRAM:
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


def _counter(name: str, meaning: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, Kind.COUNTER, meaning, labels)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...] = SECONDS) -> MetricSpec:
    return MetricSpec(name, Kind.HISTOGRAM, meaning, buckets=buckets)


def _of_replica(name: str, kind: Kind, meaning: str, *labels: str) -> MetricSpec:
    buckets = STEP_BOUNDS if kind is Kind.HISTOGRAM else ()
    return MetricSpec(name, kind, meaning, ("replica", *labels), Scope.CLUSTER, buckets)


def _of_cluster(name: str, kind: Kind, meaning: str) -> MetricSpec:
    return MetricSpec(name, kind, meaning, scope=Scope.CLUSTER)


REQUESTS = _counter("easel_requests_total", "HTTP requests answered", "path", "status")
IN_FLIGHT = MetricSpec("easel_requests_in_flight", Kind.GAUGE, "Answers under way")
CANCELLED = _counter("easel_generations_cancelled_total", "Answers whose client walked away")
REFUSED = _counter("easel_refused_total", "Answers that the cluster did not take, by why", "reason")
MOVED = _counter("easel_moved_total", "Times a request went on at another replica, by why", "reason")
PROMPT_TOKENS = _counter("easel_prompt_tokens_total", "Prompt tokens of admitted choices")
CACHED_TOKENS = _counter("easel_cached_tokens_total", "Prompt tokens found in a prefix cache")
OUTPUT_TOKENS = _counter("easel_output_tokens_total", "Output tokens of committed blocks")
BLOCKS = _counter("easel_blocks_total", "Blocks committed")
STEPS_TAKEN = _counter("easel_steps_total", "Denoising steps of committed blocks")
FIRST_BLOCK = _histogram("easel_time_to_first_block_seconds", "From a request to its first block")
BLOCK_GAP = _histogram("easel_inter_block_seconds", "From one block of a choice to its next")
DURATION = _histogram("easel_request_duration_seconds", "From a request to its answer's end")
QUEUE = _histogram("easel_queue_seconds", "From submission to a replica to a slot there")
STEPS_PER_BLOCK = _histogram("easel_steps_per_block", "Denoising steps of a committed block", STEPS)
TOKENS_PER_FORWARD = _histogram(
    "easel_tokens_per_forward", "Output tokens of a committed block for each of its steps", TOKENS
)
VLLM_STEPS = _counter(
    "vllm:diffusion_num_denoising_steps_total",
    "Denoising steps, and one for each canvas of committed tokens: as vLLM counts",
)
VLLM_POSITIONS = _counter("vllm:diffusion_num_canvas_positions_total", "Canvas positions of those steps")
VLLM_TOKENS = _counter("vllm:diffusion_num_committed_tokens_total", "The same as easel_output_tokens_total")

JOURNAL_UP = _of_cluster("easel_journal_up", Kind.GAUGE, "1 while Redis answers, 0 while it is away")
JOURNAL_BUFFERED = _of_cluster(
    "easel_journal_buffered_records",
    Kind.GAUGE,
    "Records of replicas and the gateway asked that are not in Redis yet",
)
JOURNAL_LAG = _of_cluster(
    "easel_journal_lag_seconds", Kind.GAUGE, "Age of the oldest record that is not in Redis yet"
)
REPLICAS = _of_cluster("easel_replicas", Kind.GAUGE, "Replicas that report")
LOST = _of_cluster("easel_replicas_lost_total", Kind.COUNTER, "Replicas given up since the scheduler began")
WAITING = _of_cluster("easel_waiting_requests", Kind.GAUGE, "Requests without a replica")
PREDICTED_WAIT = _of_cluster(
    "easel_predicted_wait_seconds", Kind.GAUGE, "Predicted time until a newcomer has a slot"
)

SLOTS = _of_replica("easel_replica_slots", Kind.GAUGE, "Canvases it can denoise together")
SLOTS_USED = _of_replica("easel_replica_slots_used", Kind.GAUGE, "Slots that requests have")
PAGES = _of_replica("easel_replica_pages", Kind.GAUGE, "Pages of its prefix cache")
PAGES_AVAILABLE = _of_replica(
    "easel_replica_pages_available", Kind.GAUGE, "Pages that are free or can be, less those promised"
)
REPLICA_WAITING = _of_replica("easel_replica_waiting", Kind.GAUGE, "Requests there without a slot")
DRAINING = _of_replica("easel_replica_draining", Kind.GAUGE, "1 while it takes no more requests")
STEP_TOKENS = _of_replica(
    "easel_replica_step_tokens_total", Kind.COUNTER, "Tokens computed, by phase: refresh or reuse", "phase"
)
REPLICA_STEPS = _of_replica("easel_replica_steps_total", Kind.COUNTER, "Forwards done")
REPLICA_BLOCKS = _of_replica("easel_replica_blocks_total", Kind.COUNTER, "Blocks finished")
REPLICA_TOKENS = _of_replica("easel_replica_committed_tokens_total", Kind.COUNTER, "Output tokens committed")
PREEMPTIONS = _of_replica(
    "easel_replica_preemptions_total", Kind.COUNTER, "Slots taken from a request for a more urgent one"
)
STEP_SECONDS = _of_replica("easel_replica_step_seconds", Kind.HISTOGRAM, "Time of a forward")
PREDICTED_SECONDS = _of_replica(
    "easel_replica_predicted_step_seconds", Kind.HISTOGRAM, "Time of a forward as the cost model foresaw it"
)
COST_ERROR = _of_replica(
    "easel_replica_cost_error_ratio", Kind.GAUGE, "Running mean of |predicted - actual| / actual step seconds"
)
POLICY_EPOCH = _of_replica("easel_replica_policy_epoch", Kind.GAUGE, "Epoch of the policy it follows")
POLICY_AGE = _of_replica(
    "easel_replica_policy_age_seconds",
    Kind.GAUGE,
    "Time since it was last given a policy",
)

GATEWAY_METRICS = (
    REQUESTS, IN_FLIGHT, CANCELLED, REFUSED, MOVED, PROMPT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS, BLOCKS,
    STEPS_TAKEN, FIRST_BLOCK, BLOCK_GAP, DURATION, QUEUE, STEPS_PER_BLOCK, TOKENS_PER_FORWARD, VLLM_STEPS,
    VLLM_POSITIONS, VLLM_TOKENS,
)  # fmt: skip
REPLICA_METRICS = (
    SLOTS, SLOTS_USED, PAGES, PAGES_AVAILABLE, REPLICA_WAITING, DRAINING, STEP_TOKENS, REPLICA_STEPS,
    REPLICA_BLOCKS, REPLICA_TOKENS, PREEMPTIONS, STEP_SECONDS, PREDICTED_SECONDS, COST_ERROR, POLICY_EPOCH,
    POLICY_AGE,
)  # fmt: skip
CLUSTER_METRICS = (REPLICAS, LOST, WAITING, PREDICTED_WAIT, JOURNAL_UP, JOURNAL_BUFFERED, JOURNAL_LAG)
METRICS = (*GATEWAY_METRICS, *CLUSTER_METRICS, *REPLICA_METRICS)


def exported_names(metrics: Iterable[MetricSpec] = METRICS) -> frozenset[str]:
    """Names of all samples, `_total`, `_bucket`, `_sum` and `_count` included."""
    return frozenset(name for metric in metrics for name in metric.exported)
