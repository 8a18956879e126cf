"""What is deployed, as the configuration has it."""

from pathlib import Path

import pytest

from easel.cluster.app import gpus_of_a_replica
from easel.cluster.config import load_config


@pytest.mark.parametrize(
    ("device", "gpus", "each"),
    [("auto", 0.0, 0), ("auto", 1.0, 0), ("auto", 2.0, 1), ("cpu", 8.0, 0), ("cuda", 0.0, 1)],
)
def test_a_replica_has_a_gpu_of_its_own_or_none(device: str, gpus: float, each: int) -> None:
    config = load_config(overrides={"model": Path("m"), "replicas": 2, "engine": {"device": device}})
    assert gpus_of_a_replica(config, gpus) == each
