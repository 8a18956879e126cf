"""What a running cluster shows of itself and of its requests."""

import re
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from easel.cluster.cli import app
from easel.cluster.lifecycle import RunningCluster
from tests.end_to_end.clients import MODEL, user

pytestmark = pytest.mark.end_to_end


def get(cluster: RunningCluster, path: str) -> httpx.Response:
    return httpx.get(f"{cluster.base_url}{path}", timeout=30, trust_env=False)


def ask(cluster: RunningCluster, content: str) -> str:
    """The answer's id."""
    body = {"model": MODEL, "messages": user(content)}
    answer = httpx.post(
        f"{cluster.base_url}/v1/chat/completions", json=body, timeout=60, trust_env=False
    ).json()
    return answer["id"]


def test_a_request_is_seen_with_its_replica_and_its_blocks(cluster: RunningCluster) -> None:
    answer_id = ask(cluster, "count 100 by 3")
    shown: dict[str, Any] = get(cluster, "/cluster").json()
    request = next(one for one in shown["requests"] if one["id"] == answer_id)
    timeline: dict[str, Any] = get(cluster, f"/cluster/requests/{answer_id}").json()
    events: list[dict[str, Any]] = timeline["events"]
    kinds = [event["kind"] for event in events]
    assert request["state"] == timeline["state"] == "finished"
    assert request["replica"] in {replica["id"] for replica in shown["replicas"]}
    assert kinds == ["received", "placed", "prefilled", *["block"] * request["blocks"], "finished"]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    assert sum(event.get("tokens", 0) for event in events) == request["tokens"]
    assert events[1]["replica"] == request["replica"]


def test_the_replicas_steps_are_seen(cluster: RunningCluster) -> None:
    ask(cluster, "sort zebra")
    strips: list[list[dict[str, Any]]] = []
    for _ in range(200):  # digests are some hundredths of a second behind, under load more
        strips = [replica["strip"] for replica in get(cluster, "/cluster").json()["replicas"]]
        if any(strips):
            break
    step = next(strip[-1] for strip in strips if strip)
    assert step["refresh"] + step["reuse"] > 0
    assert step["actual_ms"] > 0.0
    assert set(step) == {"step", "refresh", "reuse", "predicted_ms", "actual_ms"}


def test_easel_top_prints_the_cluster_once(cluster: RunningCluster) -> None:
    answer_id = ask(cluster, "sort zebra")
    shown = CliRunner().invoke(app, ["top", cluster.base_url, "--once"])
    assert shown.exit_code == 0
    assert re.search(rf"^{answer_id} +finished", shown.output, re.MULTILINE)
    for replica in get(cluster, "/cluster").json()["replicas"]:
        assert re.search(rf"^{replica['id']} +serving", shown.output, re.MULTILINE)


def test_kuberay_s_probe_finds_a_gateway(cluster: RunningCluster) -> None:
    answer = get(cluster, "/-/healthz")
    assert (answer.status_code, answer.text) == (200, "success")
