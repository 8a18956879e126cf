"""/metrics beyond one process: sums over gateways, and the cluster's numbers from the scheduler."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from easel.cluster.cluster_state import ClusterState, ReplicaState
from easel.cluster.errors import NoReplica, SchedulerLost
from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.cluster_metrics import cluster_families
from easel.cluster.gateway.metric_names import (
    CLUSTER_METRICS,
    GATEWAY_METRICS,
    METRICS,
    REPLICA_METRICS,
    Kind,
    exported_names,
)
from easel.cluster.gateway.metrics import GatewayMetrics, template_of
from easel.cluster.gateway.observation import CountedPlacements, Observation
from easel.cluster.gateway.shared_counts import is_abandoned
from easel.cluster.placement_watch import Unwatched
from easel.cluster.tallies import ClusterTallies, tallies_of
from easel.scheduler.histogram import StepTimes
from easel.scheduler.messages import ReplicaDigest
from tests.cluster.gateway.fakes import (
    CHAT,
    MODEL,
    FakeBackend,
    byte_tokenizer,
    get,
    model_info,
    post,
    saying,
)
from tests.fakes import digest as plain_digest

Samples = dict[tuple[str, ...], float]

# One gateway process: counts a request, says what it would show, waits for leave to end.
GATEWAY = """
import sys
from pathlib import Path
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.scheduler.messages import BlockEvent
metrics = GatewayMetrics(lambda: 0.0, 32, Path(sys.argv[1]))
metrics.in_flight.inc()
metrics.requests.labels("/v1/completions", "200").inc()
metrics.watch().block(BlockEvent("r", 0, tuple(range(30)), 3, 0.1, 0.2, queue_seconds=0.3))
print("counted", flush=True)
sys.stdin.readline()
print(metrics.exposition().decode(), flush=True)
"""


def samples_of(text: str) -> Samples:
    """Values by name and labels' values."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def digest(replica_id: str, times: StepTimes | None = None) -> ReplicaDigest:
    counts = (times or StepTimes()).counts()
    return replace(
        plain_digest(replica_id),
        slots=16,
        refresh_tokens=100,
        reuse_tokens=300,
        step_times=counts,
        predicted_times=counts,
        journal_buffered=2,
        journal_lag_seconds=0.5,
    )


def tallies(*digests: ReplicaDigest) -> ClusterTallies:
    replicas = tuple(ReplicaState(one, False, 1.5, ()) for one in digests)
    return tallies_of(ClusterState("ok", 3, 1, replicas, (), ()), predicted_wait_seconds=0.7)


def test_any_gateway_shows_what_all_of_a_machine_have_counted(tmp_path: Path) -> None:
    gateways = [
        subprocess.Popen(
            [sys.executable, "-c", GATEWAY, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for gateway in gateways:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == "counted\n"
    shown = [samples_of(gateway.communicate("\n", timeout=30)[0]) for gateway in gateways[:1]]
    # The first has ended: what it counted stays, what it had open does not.
    shown += [samples_of(gateway.communicate("\n", timeout=30)[0]) for gateway in gateways[1:]]
    for samples in shown:
        assert samples["easel_requests_total", "/v1/completions", "200"] == 2
        assert samples["easel_blocks_total",] == 2
        assert samples["easel_tokens_per_forward_sum",] == 20
        assert samples["easel_queue_seconds_bucket", "0.5"] == 2
        assert samples["easel_queue_seconds_bucket", "0.25"] == 0
    assert [samples["easel_requests_in_flight",] for samples in shown] == [2, 1]
    assert is_abandoned(tmp_path)


def test_a_folder_is_not_abandoned_while_one_of_its_processes_lives(tmp_path: Path) -> None:
    assert not is_abandoned(tmp_path)  # nobody has counted yet
    for pid in (2**22 + 1, os.getpid()):
        (tmp_path / f"counter_{pid}.db").touch()
    assert not is_abandoned(tmp_path)
    (tmp_path / f"counter_{os.getpid()}.db").unlink()
    assert is_abandoned(tmp_path)


def test_each_name_is_exported_and_nothing_else(tmp_path: Path) -> None:
    times = StepTimes()
    times.add(0.003, 4)
    metrics = GatewayMetrics(lambda: 0.0, 32)
    metrics.requests.labels("/", "200").inc()
    text = metrics.exposition(cluster_families(tallies(digest("a", times)))).decode()
    assert {name for name, *_ in samples_of(text)} == exported_names()
    types = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert {name: types[name.removesuffix("_total")] for name in (spec.name for spec in METRICS)} == {
        spec.name: spec.kind.value for spec in METRICS
    }


def test_names_are_spelt_by_the_rules() -> None:
    assert len(exported_names()) == sum(len(spec.exported) for spec in METRICS)
    assert (*GATEWAY_METRICS, *CLUSTER_METRICS, *REPLICA_METRICS) == METRICS
    for spec in METRICS:
        assert spec.name.startswith(("easel_", "vllm:diffusion_num_"))
        assert spec.name.endswith("_total") == (spec.kind is Kind.COUNTER)
        assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM)


def test_a_replicas_numbers_carry_its_name_and_its_steps_are_a_cumulative_histogram() -> None:
    times = StepTimes()
    times.add(0.003, 4)
    times.add(30.0)
    metrics = GatewayMetrics(lambda: 0.0, 32)
    families = cluster_families(tallies(digest("a", times), digest("b")))
    shown = samples_of(metrics.exposition(families).decode())
    assert shown["easel_replica_slots", "a"] == shown["easel_replica_slots", "b"] == 16
    assert shown["easel_replica_step_tokens_total", "refresh", "a"] == 100
    assert shown["easel_replica_step_tokens_total", "reuse", "a"] == 300
    assert shown["easel_replica_policy_age_seconds", "a"] == 1.5
    buckets = {
        key[1]: value
        for key, value in shown.items()
        if key[0] == "easel_replica_step_seconds_bucket" and key[2] == "a"
    }
    assert (buckets["0.002"], buckets["0.004"], buckets["5.0"], buckets["+Inf"]) == (0, 4, 4, 5)
    assert shown["easel_replica_step_seconds_sum", "a"] == pytest.approx(30.012)
    assert shown["easel_replica_step_seconds_count", "b"] == 0


def test_the_clusters_numbers_have_no_label_and_sum_what_waits_for_the_journal() -> None:
    of_gateway = tallies(digest("a"), digest("b")).with_journal(up=False, buffered=5, lag_seconds=0.2)
    shown = samples_of(GatewayMetrics(lambda: 0.0, 32).exposition(cluster_families(of_gateway)).decode())
    assert shown["easel_replicas",] == 2
    assert (shown["easel_waiting_requests",], shown["easel_replicas_lost_total",]) == (3, 1)
    assert shown["easel_predicted_wait_seconds",] == 0.7
    assert shown["easel_journal_up",] == 0
    assert (shown["easel_journal_buffered_records",], shown["easel_journal_lag_seconds",]) == (9, 0.5)


@pytest.mark.asyncio
async def test_a_scheduler_that_is_away_leaves_a_gap_and_no_error() -> None:
    async def away() -> ClusterTallies:
        raise SchedulerLost(0.0)

    app = build_gateway(saying("x"), model_info(), byte_tokenizer(), observation=Observation(tallies=away))
    answer = await get(app, "/metrics")
    assert answer.status_code == 200
    assert ("easel_replicas",) not in samples_of(answer.text)
    assert ("easel_blocks_total",) in samples_of(answer.text)


@pytest.mark.asyncio
async def test_answers_that_the_cluster_does_not_take_are_counted_by_why() -> None:
    metrics = GatewayMetrics(lambda: 0.0, 32)
    backend = FakeBackend(lambda _: [NoReplica(1.0)])
    app = build_gateway(backend, model_info(), byte_tokenizer(), observation=Observation(metrics=metrics))
    await post(app, CHAT, {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
    shown = samples_of((await get(app, "/metrics")).text)
    assert shown["easel_refused_total", "no_replica"] == 1
    assert shown["easel_refused_total", "queue_full"] == 0


def test_requests_that_go_elsewhere_are_counted_by_why() -> None:
    metrics = GatewayMetrics(lambda: 0.0, 32)
    watch = CountedPlacements(Unwatched(), metrics)
    watch.placed("r", "a", 1)
    watch.left("r", "a", "replica_lost")
    shown = samples_of(metrics.exposition().decode())
    assert shown["easel_moved_total", "replica_lost"] == 1
    assert shown["easel_moved_total", "handed_over"] == 0


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/completions", "/v1/completions"),
        ("/v1/responses/resp_1", "/v1/responses/{response_id}"),
        ("/v1/responses/resp_1/cancel", "/v1/responses/{response_id}/cancel"),
        ("/cluster/requests/cmpl-1", "/cluster/requests/{id}"),
        ("/ui/app.js", "/ui/{file}"),
        ("/wp-login.php", "other"),
    ],
)
def test_ids_in_paths_make_no_labels(path: str, template: str) -> None:
    assert template_of(path) == template
