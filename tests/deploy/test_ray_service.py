"""The RayService keeps the operator's rules that no schema states, and Ray its own."""

import shlex
from importlib.metadata import version
from typing import Any, cast

import pytest
import yaml

from easel.cluster.config import ClusterConfig, load_config
from tests.deploy.manifests import OVERLAYS, Manifest, pod_templates, ray_cluster, ray_service, worker_groups

RAY_STOP_SECONDS = 10.0  # --grace-period of `ray stop`
SECRETS = {  # what the pods' environment carries, as make-secrets.sh makes it
    "EASEL_JOURNAL__REDIS_URL": "rediss://easel:secret@easel-journal:6380/0",
    "EASEL_API_KEYS": "a-key",
}


def serve_config(overlay: str) -> Manifest:
    return cast(Manifest, yaml.safe_load(ray_service(overlay)["serveConfigV2"]))


def settings(overlay: str) -> ClusterConfig:
    """The settings as `serve_app.build` makes them: what is in the environment wins over `args`."""
    (application,) = serve_config(overlay)["applications"]
    return load_config(settings=application["args"], environment=SECRETS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's, when its Serve is imported
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_serve_takes_the_configuration_and_easel_its_settings(overlay: str) -> None:
    from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415

    schema = cast(Any, ServeDeploySchema).model_validate(serve_config(overlay))
    assert [application.import_path for application in schema.applications] == [
        "easel.cluster.serve_app:build"
    ]
    assert schema.proxy_location.value == "Disabled"  # gateways listen for themselves
    assert settings(overlay).journal.redis_url == SECRETS["EASEL_JOURNAL__REDIS_URL"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_stands_in_the_settings(overlay: str) -> None:
    text = ray_service(overlay)["serveConfigV2"]
    assert [word for word in ("redis_url", "api_keys", "otlp_headers", "password") if word in text] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_gateways_listen_where_kuberay_looks_for_them(overlay: str) -> None:
    assert (settings(overlay).host, settings(overlay).port) == ("0.0.0.0", 8000)
    for group in worker_groups(overlay):
        assert {"name": "serve", "containerPort": 8000} in group["template"]["spec"]["containers"][0]["ports"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_worker_pod_of_the_start_can_have_a_gateway(overlay: str) -> None:
    """Without one, the operator's probe of :8000 never finds the pod ready."""
    assert settings(overlay).gateways == sum(group["minReplicas"] for group in worker_groups(overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_have_room_for_the_replicas(overlay: str) -> None:
    groups, config = worker_groups(overlay), settings(overlay)
    most = config.autoscaling.max_replicas if config.autoscaling.enabled else config.replicas
    least = config.autoscaling.min_replicas if config.autoscaling.enabled else config.replicas
    assert sum(group["maxReplicas"] for group in groups) == most
    assert sum(group["minReplicas"] for group in groups) == least
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in groups)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_that_goes_has_time_to_drain_and_to_stop(overlay: str) -> None:
    drain = settings(overlay).ray.drain_seconds
    for group in worker_groups(overlay):
        spec = group["template"]["spec"]
        script = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        sleep, stop = (shlex.split(command) for command in script.split(";"))
        assert (sleep[0], float(sleep[1])) == ("sleep", drain)
        assert stop == ["ray", "stop", "--grace-period", f"{RAY_STOP_SECONDS:.0f}"]
        assert spec["terminationGracePeriodSeconds"] >= drain + 2 * RAY_STOP_SECONDS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_cluster_asks_for_a_token_and_survives_its_head(overlay: str) -> None:
    cluster = ray_cluster(overlay)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == version("ray")  # the operator wants 2.52 or newer for tokens
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"] == "rediss://easel-gcs:6380"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert ray_service(overlay)["excludeHeadPodFromServeSvc"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_autoscaler_is_the_second_and_reads_the_only_token(overlay: str) -> None:
    cluster = ray_cluster(overlay)
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    head = cluster["headGroupSpec"]["template"]["spec"]
    token = {
        "name": "api-token",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    assert token in cluster["autoscalerOptions"]["volumeMounts"]
    assert token["name"] not in {mount["name"] for mount in head["containers"][0]["volumeMounts"]}
    assert token["name"] in {volume["name"] for volume in head["volumes"]}
    assert all(not template["spec"]["automountServiceAccountToken"] for _, template in pod_templates(overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_are_left_to_the_operator(overlay: str) -> None:
    for group in [ray_cluster(overlay)["headGroupSpec"], *worker_groups(overlay)]:
        container = group["template"]["spec"]["containers"][0]
        assert not {"livenessProbe", "readinessProbe", "startupProbe"} & set(container)


@pytest.mark.parametrize("overlay", ["gpu-h100", "multi-node"])
def test_an_upgrade_in_steps_is_one_that_the_operator_accepts(overlay: str) -> None:
    strategy = ray_service(overlay)["upgradeStrategy"]
    options = strategy["clusterUpgradeOptions"]
    assert strategy["type"] == "NewClusterWithIncrementalUpgrade"
    assert 0 < options["stepSizePercent"] <= options["maxSurgePercent"] <= 100
    assert options["intervalSeconds"] > 0
    assert options["gatewayClassName"]
    assert ray_cluster(overlay)["enableInTreeAutoscaling"]


@pytest.mark.parametrize("overlay", ["gpu-h100", "multi-node"])
def test_gpus_are_asked_for_and_counted_alike(overlay: str) -> None:
    for group in worker_groups(overlay):
        spec = group["template"]["spec"]
        resources = spec["containers"][0]["resources"]
        assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"
        assert spec["nodeSelector"]["nvidia.com/gpu.product"].startswith("NVIDIA-")
        assert any(toleration["key"] == "nvidia.com/gpu" for toleration in spec["tolerations"])
    assert settings(overlay).engine.device == "cuda"  # the number of GPUs is not known when it is deployed


def test_each_kind_of_gpu_has_a_group_of_its_own() -> None:
    groups = worker_groups("multi-node")
    products = [group["template"]["spec"]["nodeSelector"]["nvidia.com/gpu.product"] for group in groups]
    assert len(set(products)) == len(groups) == 2
    assert len({group["groupName"] for group in groups}) == 2
