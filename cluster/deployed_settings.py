"""What `serve deploy` is told, as Easel's settings. Imports neither Ray nor a model."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from easel.cluster.config import ClusterConfig, load_config
from easel.cluster.demo_model import DEMO_MODEL_NAME, demo_model
from easel.cluster.errors import StartFailed
from easel.cluster.journal import JournalSettings


def deployed_config(args: Mapping[str, Any], environment: Mapping[str, str]) -> ClusterConfig:
    """The settings; the embedded model where nobody names another. Raises ConfigError."""
    values = dict(args)
    if "model" not in values and "EASEL_MODEL" not in environment:
        values["model"] = demo_model()
        values.setdefault("model_name", DEMO_MODEL_NAME)
    config = load_config(settings=values, environment=environment)
    return config.model_copy(update={"model": config.model.absolute()})


def settings_version(config: ClusterConfig, journal: JournalSettings) -> str:
    """Another one when the scheduler has to be another one: other settings of its own, or another Easel."""
    parts = (config.scheduler, config.telemetry, *config.tenants)
    told = [version("easel"), journal.url, repr(journal), *(part.model_dump_json() for part in parts)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def check_one_node(nodes: Sequence[Mapping[str, Any]]) -> None:
    """Whether all processes of `ray.nodes()` reach a socket on this one. Raises StartFailed."""
    alive = [node for node in nodes if node["Alive"]]
    if len(alive) != 1 or not alive[0]["Resources"].get("CPU"):
        raise StartFailed(
            "the journal",
            f"{len(alive)} nodes, or a head that takes no replicas, need a Redis that all of them reach; "
            "set journal.redis_url in args, or EASEL_JOURNAL__REDIS_URL where the nodes are started.",
        )
