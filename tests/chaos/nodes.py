"""A Ray cluster of several nodes on this machine, each a process tree that can be killed and replaced."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import libfaketime
import psutil

from easel.cluster.ray_environment import free_port, ray_environment

_ADDRESS = "127.0.0.1"
_OBJECT_STORE_BYTES = 80 * 2**20
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_JOINED = b"Ray runtime started"
_FAKETIME = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
# A silent node is given up after 3 probes: seconds, where Ray's own settings take half a minute.
_PROBES = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(slots=True)
class Node:
    """One `ray start` and all it started. Its wall clock is what its clock file says it is off by."""

    name: str
    process: subprocess.Popen[bytes]
    clock: Path

    def tree(self) -> list[psutil.Process]:
        """Every process of the node, the one that started it first."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def jump(self, seconds: int) -> None:
        """Put the wall clocks of its Python processes off by so much; 0 puts them right."""
        beside = self.clock.with_suffix(".new")
        beside.write_text(f"{seconds:+d}s\n")
        beside.replace(self.clock)


@dataclass(slots=True)
class Nodes:
    """The head, which takes no replicas, and as many workers as are wanted."""

    address: str = ""
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="easel-", dir="/tmp")))
    environment: dict[str, str] = field(default_factory=dict[str, str])
    keep_logs: bool = False
    head: Node | None = None
    workers: list[Node] = field(default_factory=list[Node])
    _names: int = 0

    def start(self, workers: int) -> None:
        """Returns once every node has joined. Raises RuntimeError, with what Ray printed."""
        # The children of this process must find `easel` and nothing of the folder they start in.
        self.environment = {**os.environ, **ray_environment(), **_PROBES, "PYTHONSAFEPATH": "1"}
        port = free_port(_ADDRESS)
        self.address = f"{_ADDRESS}:{port}"
        head = ["--head", f"--port={port}", f"--ray-client-server-port={free_port(_ADDRESS)}"]
        head += ["--num-cpus=0", "--include-dashboard=false"]
        self.head = self._launch("head", head)
        self._wait_for(self.head)
        for node in [self.add() for _ in range(workers)]:
            self._wait_for(node)

    def add(self) -> Node:
        """Start one more worker node; it joins some seconds later."""
        self._names += 1
        node = self._launch(f"node-{self._names}", [f"--address={self.address}", "--num-cpus=8"])
        self.workers.append(node)
        return node

    def add_and_wait(self) -> Node:
        """Start one more worker node; returns once it has joined."""
        node = self.add()
        self._wait_for(node)
        return node

    def kill(self, node: Node) -> None:
        """The machine is gone: every process of it, at once."""
        self.workers = [other for other in self.workers if other is not node]
        _kill(node)

    def processes(self) -> list[psutil.Process]:
        """Of all nodes."""
        nodes = self.workers if self.head is None else [self.head, *self.workers]
        return [process for node in nodes for process in node.tree()]

    def stop(self) -> None:
        """End everything and remove the files, if they are not to be kept. May be called again."""
        for node in [*self.workers, *([self.head] if self.head is not None else [])]:
            _kill(node)
        self.workers, self.head = [], None
        if not self.keep_logs:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _launch(self, name: str, options: list[str]) -> Node:
        clock = self.folder / f"{name}.clock"
        clock.write_text("+0s\n")
        log = (self.folder / f"{name}.log").open("wb")
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *options]
        command += [f"--node-ip-address={_ADDRESS}", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        # A folder of its own each, or two that start at once take the same sockets' names.
        command += [
            f"--temp-dir={self.folder / name}",
            "--include-log-monitor=false",
            "--disable-usage-stats",
        ]
        with log:
            process = subprocess.Popen(
                command,
                env=self.environment | _fake_clock(clock),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Node(name, process, clock)

    def _wait_for(self, node: Node) -> None:
        log = self.folder / f"{node.name}.log"
        deadline = time.monotonic() + _START_SECONDS
        while _JOINED not in log.read_bytes():
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray's {node.name} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)


def _fake_clock(clock: Path) -> dict[str, str]:
    """Wall clocks follow the file, for Python alone; time that only ever grows is left as it is."""
    return {
        "LD_PRELOAD": str(_FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }


def _kill(node: Node) -> None:
    victims = node.tree()
    for victim in victims:
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    psutil.wait_procs(victims, timeout=_STOP_SECONDS)
    node.process.wait(timeout=_STOP_SECONDS)
