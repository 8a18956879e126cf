"""Easel on a Ray cluster of several nodes, with a Redis behind a wire that can be cut."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from easel.cluster.config import ClusterConfig, load_config
from easel.cluster.lifecycle import RunningCluster, start
from easel.cluster.ray_environment import environment, free_port
from tests.chaos.nodes import Node, Nodes
from tests.chaos.proxy import Proxy
from tests.chaos.valkey import Valkey
from tests.end_to_end.load import GATEWAY, SCHEDULER, WORKER

DEMO = Path(__file__).parents[2] / "demo" / "checkpoint"
MODEL = "easel-demo"

_POLL_SECONDS = 0.25
_STEADY_POLLS = 3  # in a row, until the cluster counts as whole again


class NotRecovered(Exception):
    """A fault's consequences did not go away by themselves."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    nodes: int = 2  # beside the head
    replicas: int = 3
    gateways: int = 2
    slots: int = 8
    keep_logs: bool = False  # of Ray's processes


@dataclass(slots=True)
class ChaosCluster:
    """Use it as an async context manager; it starts everything and ends everything."""

    size: Size
    nodes: Nodes = field(default_factory=Nodes)
    valkey: Valkey = field(default_factory=Valkey)
    proxy: Proxy = field(init=False)
    running: RunningCluster | None = None
    _resources: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        self.proxy = Proxy(self.valkey.port)
        self.nodes.keep_logs = self.size.keep_logs

    async def __aenter__(self) -> "ChaosCluster":
        try:
            self._resources.callback(self.valkey.stop)
            await asyncio.to_thread(self.valkey.start)
            self._resources.push_async_callback(self.proxy.stop)
            await self.proxy.start()
            self._resources.callback(self.nodes.stop)
            await asyncio.to_thread(self.nodes.start, self.size.nodes)
            with environment(self.nodes.environment):
                self.running = await asyncio.to_thread(start, self._config())
            self._resources.callback(self._stop)
            await self.whole()
        except BaseException:  # half a cluster is taken down, whatever stopped it from coming up
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    @property
    def base_url(self) -> str:
        if self.running is None:
            raise RuntimeError("the cluster has not been started")
        return self.running.base_url

    def workers(self) -> list[psutil.Process]:
        """Processes of worker replicas, whatever state they are in."""
        return self._titled(WORKER)

    def gateways(self) -> list[psutil.Process]:
        return self._titled(GATEWAY)

    def schedulers(self) -> list[psutil.Process]:
        return self._titled(SCHEDULER)

    def node_of(self, process: psutil.Process) -> Node:
        """The worker node, or the head, that carries a process. Raises LookupError when it has ended."""
        head = () if self.nodes.head is None else (self.nodes.head,)
        for node in (*self.nodes.workers, *head):
            if process in node.tree():
                return node
        raise LookupError(f"no node carries {process}")

    def memory(self) -> dict[str, int]:
        """Resident bytes by kind of process."""
        found = {"workers": self.workers(), "gateways": self.gateways(), "scheduler": self.schedulers()}
        if self.valkey.process is not None:
            found["redis"] = [psutil.Process(self.valkey.process.pid)]
        return {name: sum(map(_resident, processes)) for name, processes in found.items()}

    async def health(self) -> dict[str, Any]:
        """What a gateway says; status `unreachable` when none answers."""
        try:
            async with httpx.AsyncClient(base_url=self.base_url, timeout=3, trust_env=False) as client:
                return (await client.get("/health")).json()
        except (httpx.HTTPError, ValueError):
            return {"status": "unreachable", "replicas": []}

    async def whole(
        self, before: frozenset[str] = frozenset(), replaced: int = 0, seconds: float = 150.0
    ) -> float:
        """Wait until all is there that should be, and so many of those `before` are not; seconds it took.

        Raises NotRecovered.
        """
        begin, steady, health = time.monotonic(), 0, dict[str, Any]()
        while steady < _STEADY_POLLS:
            health = await self.health()
            steady = steady + 1 if self._is_whole(health, before, replaced) else 0
            if time.monotonic() - begin > seconds:
                counts = f"{len(self.workers())} workers, {len(self.gateways())} gateways"
                raise NotRecovered(f"after {seconds:.0f} s: {counts}, health {health}")
            await asyncio.sleep(_POLL_SECONDS)
        return time.monotonic() - begin

    def _is_whole(self, health: dict[str, Any], before: frozenset[str], replaced: int) -> bool:
        replicas = set(health.get("replicas", ()))
        return (
            health.get("status") == "ok"
            and len(replicas) == self.size.replicas
            and len(before - replicas) >= replaced
            and len(self.nodes.workers) == self.size.nodes
            and sum(self._listens(process) for process in self.gateways()) == self.size.gateways
        )

    def _listens(self, process: psutil.Process) -> bool:
        if self.running is None:
            return False
        port = self.running.config.port
        try:
            return any(
                connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
                for connection in process.net_connections(kind="tcp")
            )
        except psutil.Error:
            return False

    def _titled(self, title: str) -> list[psutil.Process]:
        return [process for process in self.nodes.processes() if _title(process).startswith(title)]

    def _stop(self) -> None:
        if self.running is not None:
            self.running.stop()

    def _config(self) -> ClusterConfig:
        return load_config(
            overrides={
                "model": DEMO,
                "model_name": MODEL,
                "port": free_port(),
                "replicas": self.size.replicas,
                "gateways": self.size.gateways,
                "engine": {"dtype": "float32", "slots": self.size.slots, "threads": 1},
                "journal": {"redis_url": f"redis://127.0.0.1:{self.proxy.port}"},
                "ray": {"address": self.nodes.address, "start_seconds": 240},
            }
        )


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
