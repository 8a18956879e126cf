"""What a real cluster tells a collector, Prometheus and its logs of the requests it serves."""

import json
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from easel.cluster.gateway.metric_names import exported_names
from easel.cluster.lifecycle import RunningCluster
from tests.end_to_end.clients import MODEL, user
from tests.end_to_end.load import eventually
from tests.otlp import Collector, ReceivedSpan

pytestmark = pytest.mark.end_to_end

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WORK = ("easel.place", "easel.generate")


def ask(cluster: RunningCluster, **headers: str) -> httpx.Response:
    body = {"model": MODEL, "messages": user("count 100 by 3")}
    url = f"{cluster.base_url}/v1/chat/completions"
    return httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False)


def trace_of(cluster: RunningCluster, collector: Collector) -> tuple[dict[str, object], list[ReceivedSpan]]:
    """A request's answer, and its trace once all processes have exported their parts."""
    answer = ask(cluster, traceparent=f"00-{TRACE}-{PARENT}-01")
    root_id = answer.headers["traceparent"].split("-")[2]

    def work() -> list[ReceivedSpan]:
        return [span for span in collector.of_trace(TRACE) if span.parent_id == root_id]

    def whole() -> bool:
        root = [span for span in collector.spans if span.span_id == root_id]
        return bool(root) and {span.name for span in work()} >= set(WORK)

    collector.wait_for(whole)
    root = [span for span in collector.spans if span.span_id == root_id]
    return answer.json(), [*root, *work()]


def test_a_request_is_one_trace_over_three_processes(cluster: RunningCluster, collector: Collector) -> None:
    answer, (root, *work) = trace_of(cluster, collector)
    by_name = {span.name: span for span in work}
    assert (root.parent_id, root.name, root.process) == (PARENT, f"chat {MODEL}", "gateway")
    assert [by_name[name].process for name in WORK] == ["scheduler", "worker"]
    assert root.attributes["gen_ai.response.id"] == answer["id"]
    slot, canvas, *blocks = by_name["easel.generate"].events
    assert (slot[0], canvas[0]) == ("easel.slot", "easel.canvas")
    diffusion = answer["diffusion"]
    assert isinstance(diffusion, dict)
    assert len(blocks) == diffusion["blocks"]
    assert sum(int(str(said["easel.block.steps"])) for _, said in blocks) == diffusion["steps"]
    replicas = {by_name[name].attributes["easel.replica"] for name in WORK}
    assert len(replicas) == 1


def test_every_metric_is_exported_and_nothing_else(cluster: RunningCluster) -> None:
    ask(cluster)
    text = httpx.get(f"{cluster.base_url}/metrics", timeout=10, trust_env=False).text
    families = list(text_string_to_metric_families(text))
    assert {sample.name for family in families for sample in family.samples} == exported_names()
    slots = next(family for family in families if family.name == "easel_replica_slots")
    assert len({sample.labels["replica"] for sample in slots.samples}) == cluster.config.replicas


def test_an_answers_line_in_the_log_leads_to_its_trace(cluster: RunningCluster, log_directory: Path) -> None:
    answer = ask(cluster)
    (log,) = log_directory.glob("gateway-*.log")

    def found() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line.get("request_id") == answer.json()["id"]]

    # It is written when the answer has been sent.
    eventually(lambda: len(found()) == 1, "the answer's line in the log")
    (line,) = found()
    assert line["message"] == "answered"
    assert answer.headers["traceparent"][3:-3] == f"{line['trace_id']}-{line['span_id']}"
    assert line["output_tokens"] == answer.json()["usage"]["completion_tokens"]
    assert "count 100" not in log.read_text(encoding="utf-8")
