"""The whole cluster's metrics, which any gateway shows: from the digests that the scheduler has."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from easel.cluster.cluster_state import ReplicaState
from easel.cluster.gateway import metric_names as names
from easel.cluster.gateway.metric_names import Kind, MetricSpec
from easel.cluster.tallies import ClusterTallies
from easel.scheduler.messages import STEP_BOUNDS, HistogramCounts

ReplicaNumber = Callable[[ReplicaState], float]

OF_REPLICA: dict[MetricSpec, ReplicaNumber] = {
    names.SLOTS: lambda one: one.digest.slots,
    names.SLOTS_USED: lambda one: one.digest.slots_used,
    names.PAGES: lambda one: one.digest.pages,
    names.PAGES_AVAILABLE: lambda one: one.digest.pages_available,
    names.REPLICA_WAITING: lambda one: one.digest.waiting,
    names.DRAINING: lambda one: one.draining,
    names.REPLICA_STEPS: lambda one: one.digest.steps,
    names.REPLICA_BLOCKS: lambda one: one.digest.blocks,
    names.REPLICA_TOKENS: lambda one: one.digest.committed_tokens,
    names.PREEMPTIONS: lambda one: one.digest.preemptions,
    names.COST_ERROR: lambda one: one.digest.cost_error,
    names.POLICY_EPOCH: lambda one: one.digest.policy_epoch,
    names.POLICY_AGE: lambda one: one.policy_age_seconds,
}
OF_CLUSTER: dict[MetricSpec, Callable[[ClusterTallies], float]] = {
    names.REPLICAS: lambda all_of_it: len(all_of_it.replicas),
    names.LOST: lambda all_of_it: all_of_it.lost_replicas,
    names.WAITING: lambda all_of_it: all_of_it.waiting,
    names.PREDICTED_WAIT: lambda all_of_it: all_of_it.predicted_wait_seconds,
    names.JOURNAL_UP: lambda all_of_it: all_of_it.journal_up,
    names.JOURNAL_BUFFERED: lambda all_of_it: all_of_it.journal_buffered,
    names.JOURNAL_LAG: lambda all_of_it: all_of_it.journal_lag_seconds,
}
HISTOGRAMS: dict[MetricSpec, Callable[[ReplicaState], HistogramCounts]] = {
    names.STEP_SECONDS: lambda one: one.digest.step_times,
    names.PREDICTED_SECONDS: lambda one: one.digest.predicted_times,
}


def cluster_families(tallies: ClusterTallies) -> list[Metric]:
    """Ready to be written out."""
    found: list[Metric] = []
    for spec, of_cluster in OF_CLUSTER.items():
        found.append(_family(spec, [((), float(of_cluster(tallies)))]))
    for spec, of_replica in OF_REPLICA.items():
        samples = [((one.digest.replica_id,), float(of_replica(one))) for one in tallies.replicas]
        found.append(_family(spec, samples))
    found.append(_family(names.STEP_TOKENS, _step_tokens(tallies.replicas)))
    for spec, counts_of in HISTOGRAMS.items():
        found.append(_histogram(spec, [(one.digest.replica_id, counts_of(one)) for one in tallies.replicas]))
    return found


def _family(spec: MetricSpec, samples: Sequence[tuple[tuple[str, ...], float]]) -> Metric:
    kind = CounterMetricFamily if spec.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(spec.name, spec.meaning, labels=spec.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _step_tokens(replicas: Sequence[ReplicaState]) -> list[tuple[tuple[str, ...], float]]:
    samples: list[tuple[tuple[str, ...], float]] = []
    for one in replicas:
        digest = one.digest
        samples.append(((digest.replica_id, "refresh"), float(digest.refresh_tokens)))
        samples.append(((digest.replica_id, "reuse"), float(digest.reuse_tokens)))
    return samples


def _histogram(spec: MetricSpec, samples: Sequence[tuple[str, HistogramCounts]]) -> Metric:
    family = HistogramMetricFamily(spec.name, spec.meaning, labels=spec.labels)
    bounds = [*map(str, STEP_BOUNDS), "+Inf"]
    for replica_id, counts in samples:
        ranges = counts.counts or (0,) * len(bounds)
        buckets = list(zip(bounds, map(float, accumulate(ranges)), strict=True))
        family.add_metric([replica_id], buckets, counts.sum_seconds)
    return family
