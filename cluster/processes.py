"""Brings up the processes of a cluster on this machine, in this process's care.

Ray reads its environment when it is first imported, so nothing here may import it earlier.
"""

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, cast

import psutil
from rich.console import Console

from easel.cluster.config import ClusterConfig
from easel.cluster.control import ClusterControl, ask
from easel.cluster.errors import PortTaken, StartFailed
from easel.cluster.gateway.tenancy import tenants_of
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.cluster.journal import Journal
from easel.cluster.loading_progress import loading_bars
from easel.cluster.log_format import LogOrigin, configure_logging
from easel.cluster.names import APPLICATION, WORKERS
from easel.cluster.ray_environment import environment, is_free, ray_environment, serve_environment
from easel.cluster.scheduler_actor import NAMESPACE
from easel.cluster.scheduler_start import start_scheduler
from easel.cluster.tracing import check_collector
from easel.cluster.valkey_server import EmbeddedValkey
from easel.worker.model_info import read_model_info

LOGGER = logging.getLogger("easel.processes")

Report = Callable[[str], None]

_KILL_SECONDS = 5.0
_STOP_SECONDS = 20.0  # of each part


def bring_up(config: ClusterConfig, resources: ExitStack, report: Report) -> ClusterControl:
    """Start the journal, Ray, the scheduler, gateways and replicas; closing `resources` ends them all.

    Raises PortTaken, StartFailed, ConfigError, or CheckpointError for an unusable model directory.
    """
    config = config.model_copy(update={"model": config.model.resolve()})  # processes start elsewhere
    config = _observed(config, resources)
    model = read_model_info(config.model, config.model_name)
    if not (config.model / "tokenizer.json").is_file():
        ChatTokenizer.load(config.model)  # another kind may do; better to know before anything is started
    tenants_of(config.tenants)  # a wrong key hash is better known before anything is started
    if not is_free(config.host, config.port):
        raise PortTaken(config.host, config.port)
    if config.ray.address is not None and config.journal.redis_url is None:
        raise StartFailed(
            "the journal",
            "the machines of a Ray cluster need a Redis they all reach; set journal.redis_url (--redis-url).",
        )
    journal_url = config.journal.redis_url or _start_valkey(config, resources, report)
    if config.ray.address is None:
        _start_ray(config, resources, report)
    else:
        _join_ray(config.ray.address, resources, report)
    report(f"loading {model.name} in {config.least_replicas} replicas")
    return _deploy(config, journal_url, resources, Console(stderr=True))


def _observed(config: ClusterConfig, resources: ExitStack) -> ClusterConfig:
    """Sets up this process's log; gateways here get a folder for their counts, which goes in the end.

    Raises ConfigError for a collector's address or headers that cannot be used.
    """
    check_collector(config.telemetry)
    configure_logging(config.telemetry, LogOrigin("serve", str(os.getpid())))
    changes: dict[str, Path] = {}
    if config.telemetry.metrics_directory is None and config.ray.address is None:
        changes["metrics_directory"] = Path(tempfile.mkdtemp(prefix="easel-metrics-"))
        resources.callback(shutil.rmtree, changes["metrics_directory"], ignore_errors=True)
    if config.telemetry.log_directory is not None:
        changes["log_directory"] = config.telemetry.log_directory.resolve()
    return config.model_copy(update={"telemetry": config.telemetry.model_copy(update=changes)})


def _start_valkey(config: ClusterConfig, resources: ExitStack, report: Report) -> str:
    report("starting the journal (embedded Valkey)")
    valkey = EmbeddedValkey(config.journal.embedded_memory_mb)
    resources.callback(valkey.stop)
    valkey.start()
    return valkey.url


def _start_ray(config: ClusterConfig, resources: ExitStack, report: Report) -> None:
    report("starting Ray")
    folder = Path(tempfile.mkdtemp(prefix="easel-", dir="/tmp"))  # sockets' paths must be short
    if not config.ray.keep_logs:
        resources.callback(shutil.rmtree, folder, ignore_errors=True)
    resources.enter_context(environment(ray_environment()))
    resources.callback(_end_processes, frozenset(psutil.Process().children(recursive=True)))
    import ray  # noqa: PLC0415

    on_terminate = signal.getsignal(signal.SIGTERM)
    # Ray puts the working directory on its workers' path, where folders like `kernels` may be.
    with chdir(folder):
        cast(Any, ray).init(
            address="local",
            namespace=NAMESPACE,
            include_dashboard=False,
            object_store_memory=config.ray.object_store_mb * 2**20,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        )
    resources.callback(_within, _STOP_SECONDS, "Ray", cast(Any, ray).shutdown)
    # Ray takes SIGTERM for itself and exits at each one, also in the midst of stopping.
    signal.signal(signal.SIGTERM, on_terminate)


def _join_ray(address: str, resources: ExitStack, report: Report) -> None:
    """Become a driver of a cluster that others started, with whatever authentication it asks for."""
    report(f"joining the Ray cluster at {address}")
    resources.enter_context(environment(serve_environment()))
    import ray  # noqa: PLC0415

    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        cast(Any, ray).init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING
        )
    except (ConnectionError, RuntimeError) as error:
        raise StartFailed(f"Easel on the Ray cluster at {address}", str(error)) from error
    resources.callback(cast(Any, ray).shutdown)
    signal.signal(signal.SIGTERM, on_terminate)


def _deploy(
    config: ClusterConfig, journal_url: str, resources: ExitStack, console: Console
) -> ClusterControl:
    import ray  # noqa: PLC0415
    from ray import serve  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415

    from easel.cluster.app import build_application, journal_settings  # noqa: PLC0415

    settings = journal_settings(config, journal_url)
    Journal(settings)  # a URL or certificate that cannot be used is better known here
    scheduler = start_scheduler(config, settings)
    # On a cluster of others, other applications may run and the scheduler would outlive this process.
    joined = config.ray.address is not None
    resources.callback(_within, _STOP_SECONDS, "the scheduler", lambda: cast(Any, ray).kill(scheduler))
    resources.callback(_within, _STOP_SECONDS, "Serve", _stop_application if joined else _stop_serve)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
        gpus = cast(Any, ray).cluster_resources().get("GPU", 0.0)
        with loading_bars(lambda: ask(scheduler.loads, {}), console):
            serve.run(build_application(config, settings, gpus), name=APPLICATION, route_prefix=None)
    except (RuntimeError, RayError) as error:
        reasons = ask(scheduler.load_failures, [])
        raise StartFailed("the Serve application", " ".join(reasons) or str(error)) from error
    return ClusterControl(scheduler, f"{APPLICATION}#{WORKERS}")


def _within(seconds: float, what: str, stop: Callable[[], object]) -> None:
    """Stop something, but do not wait for it for ever: what is left is killed with the processes."""
    stopping = threading.Thread(target=stop, name=f"stop {what}", daemon=True)
    stopping.start()
    stopping.join(seconds)
    if stopping.is_alive():
        LOGGER.warning("%s has not stopped within %.0f s; its processes will be killed", what, seconds)


def _stop_serve() -> None:
    from ray import serve  # noqa: PLC0415

    # Ray prints an alarming line about the end of Serve's controller, which is as it should be.
    with redirect_stdout(StringIO()):
        serve.shutdown()


def _stop_application() -> None:
    from ray import serve  # noqa: PLC0415

    serve.delete(APPLICATION)


def _end_processes(others: frozenset[psutil.Process]) -> None:
    """Kill what was started here and is still there; Ray's own shutdown does not wait for all."""
    rest = [process for process in psutil.Process().children(recursive=True) if process not in others]
    _, alive = psutil.wait_procs(rest, timeout=_KILL_SECONDS)
    for process in alive:
        LOGGER.warning("killing %s, which did not end", process)
        process.kill()
    psutil.wait_procs(alive, timeout=_KILL_SECONDS)
