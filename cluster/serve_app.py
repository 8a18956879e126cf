"""`import_path: easel.cluster.serve_app:build`: Easel for `serve deploy`, and for KubeRay's RayService."""

import logging
import os
from typing import Any, cast

import ray
from ray.serve import Application
from ray.serve.exceptions import RayServeException

from easel.cluster.app import build_application, journal_settings
from easel.cluster.config import ClusterConfig
from easel.cluster.deployed_actors import CPUS, DeployedScheduler, embedded_journal, ensure_scheduler
from easel.cluster.deployed_settings import check_one_node, deployed_config, settings_version
from easel.cluster.errors import ClusterError
from easel.cluster.gateway.tenancy import tenants_of
from easel.cluster.journal import Journal
from easel.cluster.scheduler_start import start_scheduler
from easel.cluster.tracing import check_collector
from easel.worker.errors import WorkerError
from easel.worker.model_info import read_model_info

LOGGER = logging.getLogger("easel.serve_app")


def build(args: dict[str, Any]) -> Application:
    """The application that `args` describe: the settings of `easel serve --config`, as they are there.

    EASEL_… in the environment of Ray's nodes wins over them, so that secrets need not be in them.
    Raises RayServeException, of which `serve status` shows the text alone; then what was deployed
    before goes on as it is.
    """
    try:
        return _build(args)
    except (ClusterError, WorkerError) as error:
        raise RayServeException(str(error)) from error


def _build(args: dict[str, Any]) -> Application:
    config = deployed_config(args, os.environ)
    tenants_of(config.tenants)  # a wrong key hash is better known before anything is replaced
    _check_model(config)
    check_collector(config.telemetry)
    settings = journal_settings(config, _journal_url(config))
    Journal(settings)  # a URL or certificate that cannot be used is better known here
    told = settings_version(config, settings)
    ensure_scheduler(told, lambda: start_scheduler(config, settings, DeployedScheduler, CPUS, version=told))
    gpus = cast(Any, ray).cluster_resources().get("GPU", 0.0)
    return build_application(config, settings, gpus, rolling=True)


def _journal_url(config: ClusterConfig) -> str:
    if config.journal.redis_url is not None:
        return config.journal.redis_url
    check_one_node(cast(Any, ray).nodes())
    return embedded_journal(config.journal.embedded_memory_mb)


def _check_model(config: ClusterConfig) -> None:
    """Fail before anything is started, if this node can tell; it need not have the model."""
    if config.model.is_dir():
        read_model_info(config.model, config.model_name)
    else:
        LOGGER.warning("%s is not on this node; the replicas will need it", config.model)
