"""Alerts and scraping: rules that Prometheus takes, over metrics that Easel exports, at its port."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from easel.cluster.gateway.metric_names import exported_names
from tests.deploy.manifests import DEPLOY, Manifest, load, of_kind, worker_groups
from tests.deploy.promql import groupings_of, metrics_of, problems_of, spec_of

RULES = DEPLOY / "prometheus" / "rules.yaml"


def rules() -> list[Manifest]:
    return [rule for group in load(RULES)["spec"]["groups"] for rule in group["rules"]]


def promtool(*arguments: object) -> str:
    """Its output. Skips the test where it is not installed; raises with what it says if it is not content."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: the syntax of no query was checked")
    done = subprocess.run([program, *map(str, arguments)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def plain_rules(tmp_path: Path) -> Path:
    """The rules as Prometheus itself reads them, beside the tests of them."""
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(load(RULES)["spec"]))
    shutil.copy(RULES.with_name("rules.test.yaml"), tmp_path)
    return file


def test_prometheus_takes_the_rules(plain_rules: Path) -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", plain_rules)


def test_alerts_fire_when_they_should(plain_rules: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", plain_rules.with_name("rules.test.yaml"))


def test_a_rule_with_a_typo_is_refused(plain_rules: Path) -> None:
    plain_rules.write_text(plain_rules.read_text().replace("rate(", "rat("))
    with pytest.raises(AssertionError, match="rat"):
        promtool("check", "rules", plain_rules)


def test_rules_name_only_what_easel_exports_or_a_rule_records() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = {name for rule in rules() for name in metrics_of(rule["expr"])}
    assert named - exported_names() - recorded == set()
    assert recorded <= named


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_labels_and_buckets_that_there_are(rule: Manifest) -> None:
    assert problems_of(rule["expr"]) == []


@pytest.mark.parametrize(
    "rule", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"]
)
def test_an_alert_says_how_bad_it_is_and_what_it_is_about(rule: Manifest) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    told = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert told <= groupings_of(rule["expr"]) | {"namespace"}
    alert = f"`{rule['alert']}`"
    assert alert in (DEPLOY.parent / "docs" / "kubernetes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ('rate(easel_requests_total{code="500"}[5m])', ["easel_requests_total has no label code"]),
        (
            'easel_time_to_first_block_seconds_bucket{le="0.9"}',
            ["easel_time_to_first_block_seconds_bucket has no bucket up to 0.9"],
        ),
        ("max by (replika) (easel_replica_slots)", ["nothing has a label replika"]),
    ],
)
def test_a_wrong_label_or_bound_is_seen(expression: str, said: list[str]) -> None:
    assert problems_of(expression) == said


def test_names_are_found_wherever_they_stand() -> None:
    counted = 'sum by (le) (rate(a_total{x="b_total"}[5m])) / on (pod) c:d'
    expression = f"{counted} > 2 and absent(e) or max_over_time(f[1h])"
    assert metrics_of(expression) == {"a_total", "c:d", "e", "f"}
    assert spec_of("easel_steps_per_block_bucket").name == "easel_steps_per_block"


@pytest.mark.parametrize("overlay", ["gpu-h100", "multi-node"])
def test_the_monitor_finds_the_gateways(overlay: str) -> None:
    (monitor,) = of_kind(overlay, "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    for group in worker_groups(overlay):
        assert wanted.items() <= group["template"]["metadata"]["labels"].items()
        ports = group["template"]["spec"]["containers"][0]["ports"]
        assert endpoint["port"] in {port["name"] for port in ports}
