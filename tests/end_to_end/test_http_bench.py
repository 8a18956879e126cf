"""`easel bench` on a real cluster: what is measured, recorded, drawn and simulated fits together."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from easel.cluster.cli import app
from easel.cluster.lifecycle import RunningCluster
from easel.scheduler.trace import read_trace
from tests.end_to_end.clients import MODEL

pytestmark = pytest.mark.end_to_end


def easel(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_load_is_measured_recorded_and_replayed(cluster: RunningCluster, tmp_path: Path) -> None:
    trace, results = tmp_path / "trace.jsonl", tmp_path / "results.json"
    load = ("bench", cluster.base_url, "--requests", "12", "--clients", "3")
    answer = easel(*load, "--record", str(trace), "--json", str(results), "--slo", "e2e=120")
    assert answer.exit_code == 0, answer.output
    found = json.loads(results.read_text())
    assert (found["setup"]["model"], found["figures"]["answered"]) == (MODEL, 12)
    assert found["figures"]["canvases"]["blocks"] >= 12
    with trace.open() as lines:
        recorded = read_trace(lines)
    assert sum(len(request.blocks) for request in recorded.requests) == found["figures"]["canvases"]["blocks"]
    assert easel("simulate", "--trace", str(trace)).exit_code == 0
    again = easel("bench", cluster.base_url, "--arrivals", f"replay:{trace}:2")
    assert "12 of 12 requests answered" in again.output


def test_chats_find_their_beginning_in_the_prefix_cache(cluster: RunningCluster, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    lengths = ("--system-tokens", "128", "--prompt-tokens", "16", "--output-tokens", "8")
    load = (
        "bench",
        cluster.base_url,
        "--workload",
        "chats",
        "--requests",
        "3",
        "--turns",
        "3",
        "--clients",
        "1",
    )
    assert easel(*load, *lengths, "--json", str(results)).exit_code == 0
    figures = json.loads(results.read_text())["figures"]
    assert figures["answered"] == 9
    assert figures["cached_tokens"] > 0.4 * figures["prompt_tokens"]
