"""What the rendered policies let through: the gateways' port for all, the rest for those who need it."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.deploy.manifests import (
    OVERLAYS,
    RAY_PODS,
    Manifest,
    component_of,
    of_kind,
    pod_templates,
    ray_cluster,
    worker_groups,
)

STORES = ("journal", "gcs")
COMPONENTS = (*RAY_PODS, *STORES, "otel")


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who calls, or is called: a pod of ours, one of another namespace, or anybody."""

    component: str = ""
    namespace: str = "easel"
    address: str = ""

    @property
    def labels(self) -> dict[str, str]:
        known = {"app.kubernetes.io/component": self.component} if self.component else {}
        return {"app.kubernetes.io/part-of": "easel", **known} if self.namespace == "easel" else known


OPERATOR = Peer("kuberay-operator", "kuberay-system")
STRANGER = Peer("web", "shop")
OUTSIDE = Peer(namespace="", address="203.0.113.7")


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    """Kubernetes' label selectors, as far as these policies use them."""
    wanted: dict[str, str] = selector.get("matchLabels", {})
    expressions: list[dict[str, Any]] = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return wanted.items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def lets(overlay: str, direction: str, pod: Peer, other: Peer, port: int) -> bool:
    """Whether the policies of `pod` let `other` call it (Ingress), or it call `other` (Egress)."""
    side = "from" if direction == "Ingress" else "to"
    policies = [
        policy["spec"]
        for policy in of_kind(overlay, "NetworkPolicy").values()
        if direction in policy["spec"]["policyTypes"] and matches(policy["spec"]["podSelector"], pod.labels)
    ]
    assert policies, "a pod that no policy selects is open"
    return any(
        _port_allowed(rule, port) and _peer_allowed(rule.get(side), other)
        for policy in policies
        for rule in policy.get(direction.lower(), [])
    )


def reaches(overlay: str, caller: Peer, called: Peer, port: int) -> bool:
    """Whether both sides' policies let a connection through; other namespaces' pods have none of ours."""
    out = caller.namespace != "easel" or lets(overlay, "Egress", caller, called, port)
    return out and lets(overlay, "Ingress", called, caller, port)


def _port_allowed(rule: Manifest, port: int) -> bool:
    return "ports" not in rule or any(entry["port"] == port for entry in rule["ports"])


def _peer_allowed(peers: list[Manifest] | None, other: Peer) -> bool:
    return peers is None or any(_is_peer(peer, other) for peer in peers)


def _is_peer(peer: Manifest, other: Peer) -> bool:
    if "ipBlock" in peer:
        return other.address.startswith(peer["ipBlock"]["cidr"].split(".")[0] + ".")
    if not other.namespace:
        return False
    namespace = {"kubernetes.io/metadata.name": other.namespace}
    there = (
        matches(peer["namespaceSelector"], namespace)
        if "namespaceSelector" in peer
        else other.namespace == "easel"
    )
    return there and matches(peer.get("podSelector", {}), other.labels)


def every_port(overlay: str) -> dict[str, set[int]]:
    """The ports that pods name, with Ray's of which some are random, by component."""
    ports: dict[str, set[int]] = {component: set() for component in COMPONENTS}
    for _, template in pod_templates(overlay):
        named = (port for container in template["spec"]["containers"] for port in container["ports"])
        ports[component_of(template)] |= {port["containerPort"] for port in named}
    for component in RAY_PODS:
        ports[component] |= {6379, 8000, 8080, 8265, 10001, 10002, 19999, 43210, 52365}
    return ports


@pytest.mark.parametrize(
    "caller", [STRANGER, OUTSIDE, Peer("", "kuberay-system")], ids=["pod", "internet", "other"]
)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_strangers_reach_the_gateways_port_and_no_other(overlay: str, caller: Peer) -> None:
    open_ports = {
        (component, port)
        for component, ports in every_port(overlay).items()
        for port in ports
        if reaches(overlay, caller, Peer(component), port)
    }
    assert open_ports == {("ray-worker", 8000)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rays_pods_reach_each_other_on_every_port(overlay: str) -> None:
    for caller in RAY_PODS:
        for called in RAY_PODS:
            assert all(
                reaches(overlay, Peer(caller), Peer(called), port) for port in (6379, 8265, 10002, 43210)
            )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_store_is_reached_by_those_who_use_it(overlay: str) -> None:
    callers = {
        store: {name for name in COMPONENTS if reaches(overlay, Peer(name), Peer(store), 6380)}
        for store in STORES
    }
    assert callers == {"journal": {"ray-head", "ray-worker"}, "gcs": {"ray-head"}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_operator_reaches_the_dashboard_and_not_ray(overlay: str) -> None:
    ports = every_port(overlay)["ray-head"]
    assert {port for port in ports if reaches(overlay, OPERATOR, Peer("ray-head"), port)} == {8000, 8265}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_traces_go_to_the_collector(overlay: str) -> None:
    assert {name for name in COMPONENTS if reaches(overlay, Peer(name), Peer("otel"), 4318)} == set(RAY_PODS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_goes_out_but_names_to_dns_and_the_heads_questions_to_the_api_server(overlay: str) -> None:
    api_server = Peer(namespace="", address="10.0.0.1")
    dns = Peer("kube-dns", "kube-system")
    for name in COMPONENTS:
        assert not any(lets(overlay, "Egress", Peer(name), OUTSIDE, port) for port in (80, 443, 6443, 6379))
        assert lets(overlay, "Egress", Peer(name), dns, 53)
        assert lets(overlay, "Egress", Peer(name), api_server, 443) == (name == "ray-head")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_labels_that_the_policies_select_by_are_on_the_pods(overlay: str) -> None:
    """Of the RayService's own: KubeRay names its clusters at random."""
    components = {component_of(group["template"]) for group in worker_groups(overlay)}
    assert components == {"ray-worker"}
    assert component_of(ray_cluster(overlay)["headGroupSpec"]["template"]) == "ray-head"
    assert {component_of(template) for _, template in pod_templates(overlay)} == set(COMPONENTS)
