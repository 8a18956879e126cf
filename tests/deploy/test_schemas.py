"""Every object of every overlay is what its kind allows, to the last field; a typo anywhere is seen."""

from copy import deepcopy
from typing import Any

import pytest

from tests.deploy.manifests import OVERLAYS, Manifest, of_kind, rendered
from tests.deploy.strict_schemas import Refused, check

# A typo for each kind: where the misspelt field goes.
TYPOS = {
    "RayService": ("spec", "rayClusterConfig", "gcsFaultToleranceOptions"),
    "StatefulSet": ("spec", "template", "spec", "securityContext"),
    "Deployment": ("spec", "template", "spec"),
    "Service": ("spec",),
    "ServiceAccount": (),
    "ConfigMap": (),
    "Namespace": (),
    "NetworkPolicy": ("spec",),
    "PodDisruptionBudget": ("spec",),
    "PodMonitor": ("spec",),
    "PrometheusRule": ("spec", "groups", 0, "rules", 0),
    "Certificate": ("spec", "issuerRef"),
    "Issuer": ("spec",),
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_to_objects_that_their_kinds_allow(overlay: str) -> None:
    items = rendered(overlay)
    assert "RayService" in {item["kind"] for item in items}
    for item in items:
        check(item)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_object_is_there_twice_and_all_are_in_the_namespace(overlay: str) -> None:
    names = [(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in rendered(overlay)]
    assert len(names) == len(set(names))
    homeless = [
        item["metadata"]["name"]
        for item in rendered(overlay)
        if item["kind"] != "Namespace" and item["metadata"].get("namespace") != "easel"
    ]
    assert homeless == []


def test_every_kind_that_is_used_has_a_typo_that_is_tried() -> None:
    assert {item["kind"] for overlay in OVERLAYS for item in rendered(overlay)} == set(TYPOS)


@pytest.mark.parametrize("kind", TYPOS)
def test_a_field_that_no_schema_names_is_refused(kind: str) -> None:
    item = deepcopy(next(iter(of_kind("multi-node", kind).values())))
    check(item)
    _at(item, TYPOS[kind])["securityContxt"] = {}
    with pytest.raises(Refused, match="securityContxt"):
        check(item)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(
            ("spec", "rayClusterConfig", "autoscalerOptions", "version"), "v3", id="an unknown version"
        ),
        pytest.param(("spec", "rayClusterConfig", "authOptions", "mode"), "tokens", id="an unknown mode"),
        pytest.param(("spec", "excludeHeadPodFromServeSvc"), "yes", id="text for a truth"),
        pytest.param(
            ("spec", "rayClusterConfig", "workerGroupSpecs", 0, "replicas"), "2", id="text for a number"
        ),
        pytest.param(
            ("spec", "rayClusterConfig", "headGroupSpec", "rayStartParams", "num-cpus"),
            0,
            id="a number for text",
        ),
    ],
)
def test_a_value_that_the_operator_would_refuse_is_refused(
    path: tuple[str | int, ...], value: object
) -> None:
    item = deepcopy(of_kind("gpu-h100", "RayService")["easel"])
    _at(item, path[:-1])[path[-1]] = value
    with pytest.raises(Refused, match=str(path[-1])):
        check(item)


def test_what_a_crd_gives_a_default_may_be_left_out() -> None:
    item = deepcopy(of_kind("cpu-demo", "RayService")["easel"])
    for group in item["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        del group["minReplicas"], group["maxReplicas"]
    check(item)


def test_what_a_crd_wants_may_not_be_left_out() -> None:
    item = deepcopy(of_kind("cpu-demo", "RayService")["easel"])
    del item["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    with pytest.raises(Refused, match="template"):
        check(item)


def _at(item: Manifest, path: tuple[str | int, ...]) -> Any:
    place: Any = item
    for key in path:
        place = place[key]
    return place
