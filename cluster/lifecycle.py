"""Runs a cluster on this machine from start to stop, here or in a child process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import IO

import httpx

from easel.cluster.config import ClusterConfig
from easel.cluster.control import ClusterControl, RollingRestart
from easel.cluster.errors import PortTaken, StartFailed
from easel.cluster.processes import bring_up
from easel.cluster.ray_environment import is_free

Report = Callable[[str], None]

_POLL_SECONDS = 0.1
_STOP_SECONDS = 60.0
_LOG_TAIL = 4000  # characters of a failed child's output that are shown


@dataclass(slots=True)
class RunningCluster:
    """A cluster that answers requests, in a child process that ends when this process does."""

    config: ClusterConfig
    base_url: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def __enter__(self) -> "RunningCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def model_name(self) -> str:
        """The model's name in the API."""
        return model_name_of(self.config)

    def stop(self) -> None:
        """End every process that was started. May be called again."""
        self.process.terminate()
        self.process.communicate(timeout=_STOP_SECONDS)
        self.log.close()


def start(config: ClusterConfig) -> RunningCluster:
    """Start a cluster and return when it is ready. Raises PortTaken or StartFailed."""
    if not is_free(config.host, config.port):
        raise PortTaken(config.host, config.port)
    log = tempfile.TemporaryFile(prefix="easel-serve-")  # noqa: SIM115 closed by stop
    process = subprocess.Popen(
        [sys.executable, "-m", "easel.cluster.lifecycle"],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a terminal's Ctrl-C reaches this process alone, which then stops the child
    )
    cluster = RunningCluster(config, base_url_of(config), process, log)
    try:
        _send(process, config)
        _wait_until_ready(config, lambda: process.poll() is None)
    except StartFailed as error:
        cluster.process.terminate()
        cluster.process.communicate(timeout=_STOP_SECONDS)
        with log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL))
            said = log.read().decode(errors="replace")
        raise StartFailed(error.what, f"{error.reason}\n{said}") from None
    return cluster


def serve_forever(config: ClusterConfig, report: Report = print) -> None:
    """Start, say where, and serve until SIGINT or SIGTERM; then let requests finish, and stop everything.

    A second signal cuts short the requests, never the stopping, which would leave orphans. SIGUSR1
    restarts the worker replicas, one after the other.
    """
    ended, hurried, restart = threading.Event(), threading.Event(), threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if ended.is_set():
            hurried.set()
        else:
            ended.set()
            raise KeyboardInterrupt

    def restart_workers(_signal: int, _frame: FrameType | None) -> None:
        restart.set()

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, restart_workers)
    try:
        with ExitStack() as resources:
            control = bring_up(config, resources, report)
            _wait_until_ready(config, lambda: True)
            report(_greeting(config))
            try:
                while restart.wait():
                    restart.clear()
                    RollingRestart(control, config.ray.drain_seconds, config.ray.start_seconds, report).run()
            except KeyboardInterrupt:
                _finish_requests(control, config.ray.drain_seconds, hurried, report)
    except KeyboardInterrupt:
        pass  # in the midst of starting
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    report("stopped")


def _finish_requests(
    control: ClusterControl, patience_seconds: float, hurried: threading.Event, report: Report
) -> None:
    """Until none is left, the grace period is over, or somebody is in a hurry."""
    control.close_admission()
    deadline = time.monotonic() + patience_seconds
    unfinished = control.unfinished() or 0
    if unfinished:
        report(f"{unfinished} requests have {patience_seconds:.0f} s to finish; once more cuts them short")
    while unfinished and time.monotonic() < deadline and not hurried.wait(_POLL_SECONDS):
        unfinished = control.unfinished() or 0


def model_name_of(config: ClusterConfig) -> str:
    """The configured name, or that of the checkpoint's folder."""
    return config.model_name or config.model.resolve().name


def base_url_of(config: ClusterConfig) -> str:
    """Where clients reach the cluster."""
    host = "127.0.0.1" if config.host == "0.0.0.0" else config.host
    return f"http://{host}:{config.port}"


def _wait_until_ready(config: ClusterConfig, alive: Callable[[], bool]) -> None:
    """Until the scheduler has heard from every replica and a gateway answers."""
    deadline = time.monotonic() + config.ray.start_seconds
    seen = "nothing answered"
    with httpx.Client(base_url=base_url_of(config), timeout=5.0, trust_env=False) as client:
        while alive() and time.monotonic() < deadline:
            try:
                health = client.get("/health").json()
                if len(health.get("replicas", ())) >= config.least_replicas:
                    return
                seen = str(health)
            except (httpx.HTTPError, ValueError) as error:
                seen = repr(error)
            time.sleep(_POLL_SECONDS)
    raise StartFailed("the cluster", f"it was not ready in time or ended: {seen}")


def _send(process: subprocess.Popen[bytes], config: ClusterConfig) -> None:
    """The configuration is the first line of the child's input; its end tells the child to stop."""
    if process.stdin is None:
        raise StartFailed("the cluster", "its process has no input")
    process.stdin.write(config.model_dump_json().encode() + b"\n")
    process.stdin.flush()


def _serve_for_parent() -> None:
    """What the child process runs."""
    config = ClusterConfig.model_validate_json(sys.stdin.readline())

    def stop_with_parent() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_with_parent, daemon=True).start()
    status = 1
    try:
        serve_forever(config)
        status = 0
    except Exception:  # noqa: BLE001 the parent shows it, and whoever asked for a cluster decides
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # whatever of Ray did not stop in time must not hold up the end


def _greeting(config: ClusterConfig) -> str:
    base_url = base_url_of(config)
    name = model_name_of(config)
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "add 0471+2938"}]})
    return (
        f"Easel serves {name} at {base_url}. Try:\n\n"
        f"  curl -s {base_url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'\n\n"
        "Ctrl-C stops everything."
    )


if __name__ == "__main__":
    _serve_for_parent()
