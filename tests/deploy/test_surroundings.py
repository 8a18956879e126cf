"""What stands beside Easel: the collector takes what Easel sends, and the operator does what overlays ask."""

from urllib.parse import urlsplit

import pytest

from tests.deploy.manifests import DEPLOY, NAMESPACE, OVERLAYS, load, of_kind, pod_templates, ray_service
from tests.deploy.test_ray_service import settings

COLLECTOR = DEPLOY / "otel" / "collector.yaml"
VALUES = DEPLOY / "helm" / "kuberay-operator-values.yaml"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_traces_are_sent_to_where_the_collector_listens(overlay: str) -> None:
    endpoint = urlsplit(settings(overlay).telemetry.otlp_endpoint or "")
    (port,) = of_kind(overlay, "Service")[endpoint.hostname or ""]["spec"]["ports"]
    (collector,) = [template for whose, template in pod_templates(overlay) if whose == "easel-otel"]
    named = {entry["name"]: entry["containerPort"] for entry in collector["spec"]["containers"][0]["ports"]}
    listens = load(COLLECTOR)["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert (endpoint.scheme, endpoint.port) == ("http", port["port"])
    assert listens == f"0.0.0.0:{named[port['targetPort']]}"


def test_the_collectors_pipelines_are_made_of_parts_that_it_has() -> None:
    config = load(COLLECTOR)
    for pipeline in config["service"]["pipelines"].values():
        for part, names in pipeline.items():
            assert set(names) <= set(config[part])
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    (pipeline,) = config["service"]["pipelines"].values()
    assert pipeline["processors"][0] == "memory_limiter"  # before anything that keeps data


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_collector_reads_the_configuration_that_is_checked_here(overlay: str) -> None:
    (data,) = [
        item["data"] for name, item in of_kind(overlay, "ConfigMap").items() if name.startswith("easel-otel")
    ]
    assert data == {"collector.yaml": COLLECTOR.read_text(encoding="utf-8")}


def test_the_operator_watches_easels_namespace_with_the_features_that_overlays_use() -> None:
    values = load(VALUES)
    assert values["watchNamespace"] == [NAMESPACE]
    gates = {gate["name"]: gate["enabled"] for gate in values["featureGates"]}
    in_steps = {ray_service(overlay)["upgradeStrategy"]["type"] for overlay in OVERLAYS}
    assert "NewClusterWithIncrementalUpgrade" in in_steps
    assert gates["RayServiceIncrementalUpgrade"]


def test_one_version_of_the_operator_is_named_everywhere() -> None:
    tag = load(VALUES)["image"]["tag"].removeprefix("v")
    guide = (DEPLOY.parent / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    assert f"kuberay-operator --version {tag} " in guide
    assert f"--version {tag} " in VALUES.read_text(encoding="utf-8")
