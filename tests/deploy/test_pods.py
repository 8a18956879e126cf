"""What every pod is denied: privileges, a writable image, tokens, unpinned images, accidental settings."""

import re

import pytest

from easel.cluster.config import ENVIRONMENT_PREFIX, load_config
from tests.deploy.manifests import (
    OVERLAYS,
    Manifest,
    component_of,
    containers,
    of_kind,
    pod_templates,
    ray_cluster,
    rendered,
)

UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_runs_as_root_or_without_a_seccomp_profile(overlay: str) -> None:
    for whose, template in pod_templates(overlay):
        context = template["spec"]["securityContext"]
        assert context["runAsNonRoot"], whose
        assert context["runAsUser"] > 0, whose
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, whose


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_container_has_privileges_or_writes_to_its_image(overlay: str) -> None:
    named = {whose: container.get("securityContext") for whose, container in containers(overlay)}
    injected = {"autoscaler": ray_cluster(overlay)["autoscalerOptions"]["securityContext"]}
    assert {whose: context for whose, context in (named | injected).items() if context != UNPRIVILEGED} == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_ray_and_easel_write_has_a_place(overlay: str) -> None:
    places = {
        whose: {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        for whose, container in containers(overlay)
        if "/ray-" in whose
    }
    places["autoscaler"] = {
        mount["mountPath"]
        for mount in ray_cluster(overlay)["autoscalerOptions"]["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert set(map(frozenset, places.values())) == {frozenset({"/tmp", "/home/easel"})}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_mount_is_of_a_volume_that_is_there(overlay: str) -> None:
    for whose, template in pod_templates(overlay):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        if whose in of_kind(overlay, "StatefulSet"):
            claims = of_kind(overlay, "StatefulSet")[whose]["spec"]["volumeClaimTemplates"]
            volumes |= {claim["metadata"]["name"] for claim in claims}
        for container in template["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, whose


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_key_of_a_certificate_is_where_it_is_not_used(overlay: str) -> None:
    for whose, template in pod_templates(overlay):
        for volume in template["spec"]["volumes"]:
            if volume.get("secret", {}).get("secretName", "").endswith("-tls") and "ray" in component_of(
                template
            ):
                assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}], whose


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_pinned(overlay: str) -> None:
    images = {container["image"] for _, container in containers(overlay)}
    assert {image for image in images if not re.fullmatch(r"[^:@]+:v?\d+\.\d+\.\d+[\w.-]*", image)} == set()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_memory_is_limited_and_asked_for_in_full(overlay: str) -> None:
    for whose, container in containers(overlay):
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"], whose
        assert "cpu" in resources["requests"], whose


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_service_is_taken_for_a_setting(overlay: str) -> None:
    """Kubernetes would put EASEL_OTEL_SERVICE_HOST into every pod, which Easel refuses to start with."""
    for whose, template in pod_templates(overlay):
        assert template["spec"]["enableServiceLinks"] is False, whose
    named = {entry["name"] for _, container in containers(overlay) for entry in container.get("env", [])}
    ours = {name: "unix:///x" for name in named if name.startswith(ENVIRONMENT_PREFIX)}
    assert load_config(environment=ours, overrides={"model": "m"}).journal.redis_url == "unix:///x"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_is_one_that_the_script_or_cert_manager_makes(overlay: str) -> None:
    made = {f"easel-{store}-{what}" for store in ("journal", "gcs") for what in ("client", "users", "tls")}
    made |= {"easel-api-keys", "easel-authority"}
    assert set(_secrets(list(rendered(overlay)))) <= made


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_service_account_exists(overlay: str) -> None:
    accounts = of_kind(overlay, "ServiceAccount")
    assert {template["spec"]["serviceAccountName"] for _, template in pod_templates(overlay)} == set(accounts)
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_disruption_budgets_leave_room_to_drain_a_node(overlay: str) -> None:
    (budget,) = of_kind(overlay, "PodDisruptionBudget").values()
    selector = budget["spec"]["selector"]["matchLabels"]
    groups = ray_cluster(overlay)["workerGroupSpecs"]
    assert all(selector.items() <= group["template"]["metadata"]["labels"].items() for group in groups)
    # A RayCluster has no scale subresource: only a whole number of pods to keep is counted.
    assert 0 < budget["spec"]["minAvailable"] < sum(group["minReplicas"] for group in groups)


def _secrets(node: object) -> list[str]:
    """Every Secret that is named below a node."""
    if isinstance(node, list):
        return [name for entry in node for name in _secrets(entry)]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(node, dict):
        return []
    found: Manifest = node
    reference = found.get("secretKeyRef")
    own = [found["secretName"]] if "secretName" in found else [reference["name"]] if reference else []
    return own + [name for value in found.values() for name in _secrets(value)]
