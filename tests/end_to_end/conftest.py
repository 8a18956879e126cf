"""One real cluster for all end-to-end tests, started once; those that hurt it come last."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from easel.cluster.config import load_config
from easel.cluster.lifecycle import RunningCluster, start
from easel.cluster.ray_environment import free_port
from tests.checkpoints import write_tiny_checkpoint
from tests.otlp import Collector, collecting

DEMO = Path(__file__).parents[2] / "demo" / "checkpoint"
LAST = ("test_cluster_resume.py", "test_cluster_faults.py", "test_cluster_stop.py", "test_serve_deploy.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Destructive tests after all others, in the order of LAST."""
    items.sort(key=lambda item: LAST.index(item.path.name) if item.path.name in LAST else -1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model; before it was trained, a random one."""
    if (DEMO / "model.safetensors").exists():
        return DEMO
    path = tmp_path_factory.mktemp("checkpoint")
    write_tiny_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the cluster's traces go."""
    with collecting() as there:
        yield there


@pytest.fixture(scope="session")
def log_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cluster's processes write their logs, in JSON."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def cluster(checkpoint: Path, collector: Collector, log_directory: Path) -> Iterator[RunningCluster]:
    """Two replicas in float32, so that tokens do not depend on what else is in a batch."""
    config = load_config(
        overrides={
            "model": checkpoint,
            "model_name": "easel-demo",
            "port": free_port(),
            "engine": {"dtype": "float32"},
            "telemetry": {
                "otlp_endpoint": collector.url,
                "log_format": "json",
                "log_directory": log_directory,
            },
        }
    )
    running = start(config)
    yield running
    running.stop()
