"""A Ray of one node with its dashboard's agent, for what `serve deploy` needs; a process tree of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from easel.cluster.ray_environment import free_port, ray_environment

ADDRESS = "127.0.0.1"
_START_SECONDS = 90.0
_STOP_SECONDS = 10.0
_UP = b"Ray runtime started"


@dataclass(slots=True)
class RayHead:
    """Use it as a context manager."""

    cpus: int = 4
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="easel-", dir="/tmp")))
    environment: dict[str, str] = field(default_factory=dict[str, str])
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RayHead":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError("Ray has not been started")
        return self.process.pid

    def serve(self, *arguments: str) -> str:
        """What Ray's `serve` prints; the agent may need some seconds more than Ray. Raises RuntimeError."""
        command = [str(Path(sys.executable).with_name("serve")), *arguments]
        deadline = time.monotonic() + _START_SECONDS
        while True:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=90, check=False
            )
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command} failed: {done.stdout}\n{done.stderr}")
            time.sleep(1.0)

    def stop(self) -> None:
        """End every process of it, and remove its files. May be called again."""
        if self.process is not None:
            self._end(self.process)
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        dashboard = free_port(ADDRESS)
        self.environment = {
            # Without settings of Easel's: those of a test are in what it deploys.
            **{name: value for name, value in os.environ.items() if not name.startswith("EASEL_")},
            **ray_environment(),
            "PYTHONSAFEPATH": "1",
            "RAY_DASHBOARD_ADDRESS": f"http://{ADDRESS}:{dashboard}",
            "no_proxy": "*",
        }
        options = [f"--port={free_port(ADDRESS)}", f"--ray-client-server-port={free_port(ADDRESS)}"]
        options += [
            f"--dashboard-host={ADDRESS}",
            f"--dashboard-port={dashboard}",
            "--include-dashboard=true",
        ]
        options += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        options += [
            f"--node-ip-address={ADDRESS}",
            f"--num-cpus={self.cpus}",
            f"--temp-dir={self.folder}/ray",
        ]
        options += [f"--object-store-memory={80 * 2**20}", "--include-log-monitor=false"]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--head", *options]
        log = self.folder / "head.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--disable-usage-stats"],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while _UP not in log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for one in family:
            try:
                os.kill(one.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        psutil.wait_procs(family, timeout=_STOP_SECONDS)
        process.wait(timeout=_STOP_SECONDS)
