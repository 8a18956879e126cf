"""Schemas that refuse what they do not name: KubeRay's from its CRDs, core kinds', and some of others."""

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.manifests import Manifest
from tests.deploy.other_kinds import OTHER_KINDS
from tests.repository import ROOT

KUBERNETES = "1.33"
CRDS_VARIABLE = "EASEL_KUBERAY_CRDS"
OBJECT_META = {"name", "namespace", "labels", "annotations"}  # what the API server does not fill in itself


class Refused(Exception):
    """An object that its schema refuses."""


def check(item: Manifest) -> None:
    """Raises Refused with the place and the reason. Skips where a CRD is needed and absent."""
    unknown = set(item["metadata"]) - OBJECT_META
    if unknown:
        raise Refused(f"metadata: {sorted(unknown)} is not there to be set")
    group = item["apiVersion"].partition("/")[0]
    if group == "ray.io":
        _against(item, kuberay_schema(item["kind"], item["apiVersion"].partition("/")[2]))
    elif item["kind"] in OTHER_KINDS:
        _against(item, OTHER_KINDS[item["kind"]])
    else:
        _against_core(item)


@cache
def kuberay_schema(kind: str, version: str) -> Mapping[str, Any]:
    """A strict JSON Schema of one of KubeRay's kinds, made from its CRD."""
    crd = yaml.load(
        (crd_folder() / f"{kind.lower()}s.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader
    )
    (found,) = [entry for entry in crd["spec"]["versions"] if entry["name"] == version]
    return cast(Mapping[str, Any], _strict(found["schema"]["openAPIV3Schema"]))


def crd_folder() -> Path:
    """Where KubeRay's CRDs are; skips the test where they are not."""
    folder = Path(os.environ.get(CRDS_VARIABLE) or ROOT.parent / "shared" / "kuberay-crds")
    if not folder.is_dir():
        pytest.skip(
            f"{folder} is not there: no RayService was checked; set {CRDS_VARIABLE} to KubeRay's CRDs"
        )
    return folder


def _strict(node: Any) -> Any:
    """The node, closed: what has named fields has no others, and what has a default need not be given."""
    if isinstance(node, list):
        return [_strict(entry) for entry in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    closed: dict[str, Any] = {key: _strict(value) for key, value in cast(dict[str, Any], node).items()}
    fields = closed.get("properties")
    if not isinstance(fields, dict) or not isinstance(closed.get("type", "object"), str):
        return closed
    if not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if isinstance(closed.get("required"), list):
        defaulted = {name for name, field in _fields(closed) if "default" in field}
        closed["required"] = [name for name in closed["required"] if name not in defaulted]
    return closed


def _fields(node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, field in cast(dict[str, Any], node["properties"]).items():
        if isinstance(field, dict):
            yield name, cast(Mapping[str, Any], field)


def _against(item: Manifest, schema: Mapping[str, Any]) -> None:
    validator = cast(Any, jsonschema).Draft202012Validator(schema)
    problems = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(item)
    ]
    if problems:
        raise Refused("; ".join(problems))


def _against_core(item: Manifest) -> None:
    problem = _core_problem(json.dumps(item, sort_keys=True))
    if problem is not None:
        raise Refused(problem)


@cache
def _core_problem(item: str) -> str | None:
    """Overlays share most objects, and each check reads all of Kubernetes' definitions."""
    try:
        cast(Any, kubernetes_validate).validate(json.loads(item), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    return None
