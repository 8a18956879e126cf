"""Grafana's dashboards: readable JSON whose queries name only what Easel exports, and parse."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from easel.cluster.gateway.metric_names import METRICS, Scope, exported_names
from tests.deploy.manifests import DEPLOY, of_kind
from tests.deploy.promql import metrics_of, problems_of, spec_of
from tests.deploy.test_prometheus import promtool

DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))

by_file = pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)


def queries(file: Path) -> Iterator[tuple[str, str]]:
    """(panel's title, expression), with the annotations', Grafana's variables replaced."""
    board = json.loads(file.read_text(encoding="utf-8"))
    found: list[tuple[str, str]] = [
        (panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]
    ]
    found += [(entry["name"], entry["expr"]) for entry in board["annotations"]["list"]]
    for title, expression in found:
        yield title, expression.replace("$__rate_interval", "5m").replace("$namespace", "easel")


@by_file
def test_queries_name_only_what_easel_exports(file: Path) -> None:
    unknown = {
        (title, name) for title, query in queries(file) for name in metrics_of(query) - exported_names()
    }
    assert unknown == set()


@by_file
def test_queries_ask_for_labels_and_buckets_that_there_are(file: Path) -> None:
    assert [problem for _, query in queries(file) for problem in problems_of(query)] == []


@by_file
def test_queries_speak_of_one_namespace_and_count_a_replica_once(file: Path) -> None:
    for title, query in queries(file):
        assert query.count('namespace="easel"') == query.count("{"), title
        cluster = [name for name in metrics_of(query) if spec_of(name).scope is Scope.CLUSTER]
        assert not cluster or "max" in query or "min" in query, f"{title} adds up what every gateway shows"


@by_file
def test_queries_parse(file: Path, tmp_path: Path) -> None:
    rules = [
        {"record": f"easel:query{index}", "expr": query} for index, (_, query) in enumerate(queries(file))
    ]
    checked = tmp_path / "queries.yaml"
    checked.write_text(yaml.safe_dump({"groups": [{"name": file.stem, "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", checked)


@by_file
def test_panels_have_titles_of_their_own_and_do_not_overlap(file: Path) -> None:
    panels: list[Any] = json.loads(file.read_text(encoding="utf-8"))["panels"]
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)
    squares = [square for panel in panels for square in _squares(panel["gridPos"])]
    assert len(squares) == len(set(squares))
    assert max(x for x, _ in squares) < 24


def test_every_metric_is_on_some_dashboard() -> None:
    """But those with a panel of the same thing: vLLM's names, and sums of histograms that are shown."""
    shown = {spec_of(name) for file in DASHBOARDS for _, query in queries(file) for name in metrics_of(query)}
    left = {metric.name for metric in set(METRICS) - shown if not metric.name.startswith("vllm:")}
    assert left == {"easel_blocks_total", "easel_steps_total"}


@pytest.mark.parametrize("overlay", ["gpu-h100", "multi-node"])
def test_the_overlays_carry_them_for_grafanas_sidecar(overlay: str) -> None:
    carried = of_kind(overlay, "ConfigMap")["easel-dashboards"]
    assert carried["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(carried["data"]) == {file.name for file in DASHBOARDS}


def _squares(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y
