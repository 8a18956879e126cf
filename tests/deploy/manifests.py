"""The Kubernetes manifests as `kubectl kustomize` renders them, read as objects."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.repository import ROOT

DEPLOY = ROOT / "deploy"
OVERLAYS = ("cpu-demo", "gpu-h100", "multi-node")
NAMESPACE = "easel"
RAY_PODS = ("ray-head", "ray-worker")

Manifest = dict[str, Any]


@cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """All objects of an overlay. Skips the test where there is no kubectl; raises if it does not render."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip(
            "kubectl is not installed: no manifest was rendered, nothing of deploy/kustomize was checked"
        )
    folder = DEPLOY / "kustomize" / "overlays" / overlay
    done = subprocess.run([kubectl, "kustomize", str(folder)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{overlay} does not render: {done.stderr}")
    return documents(done.stdout)


def documents(text: str) -> tuple[Manifest, ...]:
    """The objects in a file of several YAML documents."""
    return tuple(
        document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document is not None
    )


def of_kind(overlay: str, kind: str) -> dict[str, Manifest]:
    """The overlay's objects of one kind, by name."""
    return {item["metadata"]["name"]: item for item in rendered(overlay) if item["kind"] == kind}


def ray_service(overlay: str) -> Manifest:
    return of_kind(overlay, "RayService")["easel"]["spec"]


def ray_cluster(overlay: str) -> Manifest:
    return ray_service(overlay)["rayClusterConfig"]


def worker_groups(overlay: str) -> list[Manifest]:
    return ray_cluster(overlay)["workerGroupSpecs"]


def pod_templates(overlay: str) -> Iterator[tuple[str, Manifest]]:
    """(whose, template) of every pod that the overlay asks for."""
    cluster = ray_cluster(overlay)
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]
    for item in rendered(overlay):
        if item["kind"] in {"Deployment", "StatefulSet"}:
            yield item["metadata"]["name"], item["spec"]["template"]


def containers(overlay: str) -> Iterator[tuple[str, Manifest]]:
    """(whose, container) of every container that the overlay names."""
    for whose, template in pod_templates(overlay):
        for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
            yield f"{whose}/{container['name']}", container


def component_of(template: Manifest) -> str:
    return template["metadata"]["labels"]["app.kubernetes.io/component"]


def load(path: Path) -> Manifest:
    """A YAML file of one document."""
    return cast(Manifest, yaml.safe_load(path.read_text(encoding="utf-8")))
