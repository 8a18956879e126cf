"""What is done to single processes of a running cluster, and how they are chosen."""

import asyncio
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

import psutil

from tests.chaos.cluster import ChaosCluster, NotRecovered
from tests.chaos.freeze import busiest_thread, freeze

_OUT_OF_MEMORY_SECONDS = 8.0  # after which the kernel kills who holds the memory
_RESTART_SECONDS = 300.0


class FaultKind(StrEnum):
    """Everything that may happen to a cluster here."""

    WORKER_KILL = "worker-kill"
    WORKER_STOP = "worker-stop"
    WORKER_HANG = "worker-hang"
    WORKER_OOM = "worker-oom"
    NODE_LOSS = "node-loss"
    SCHEDULER_KILL = "scheduler-kill"
    GATEWAY_KILL = "gateway-kill"
    REDIS_RESTART = "redis-restart"
    REDIS_WIPE = "redis-wipe"
    REDIS_AWAY = "redis-away"
    PARTITION = "partition"
    CLOCK_JUMP = "clock-jump"
    ROLLING_RESTART = "rolling-restart"


@dataclass(frozen=True, slots=True)
class Injury:
    """What a fault did, once it is over and the cluster may heal."""

    detail: str
    replaced: int = 0  # replicas that will not come back under their ids


@dataclass(frozen=True, slots=True)
class Site:
    """Where faults happen: the cluster, chance, and how long an outage lasts."""

    cluster: ChaosCluster
    rng: random.Random
    outage_seconds: float


Fault = Callable[[Site], Awaitable[Injury]]


async def worker_kill(site: Site) -> Injury:
    """SIGKILL, as of a driver that crashed."""
    return Injury(_kill(site.rng.choice(site.cluster.workers())), replaced=1)


async def worker_stop(site: Site) -> Injury:
    """SIGSTOP, as of a GPU that hangs; later the zombie wakes up and still believes it owns its requests."""
    victim = site.rng.choice(site.cluster.workers())
    seconds = site.rng.uniform(0.15, 0.5) * site.outage_seconds
    victim.suspend()
    await asyncio.sleep(seconds)
    try:
        victim.resume()
    except psutil.NoSuchProcess:
        return Injury(f"{victim.pid}, ended while it was stopped for {seconds:.1f} s")
    return Injury(f"{victim.pid} for {seconds:.1f} s")


async def worker_hang(site: Site) -> Injury:
    """The engine's thread alone stands still, as when a GPU does not return; the process lives on."""
    victim = site.rng.choice(site.cluster.workers())
    seconds = site.rng.uniform(0.15, 0.5) * site.outage_seconds
    if not await asyncio.to_thread(freeze, busiest_thread(victim), seconds):
        raise RuntimeError(f"process {victim.pid} may not be traced")
    return Injury(f"{victim.pid} for {seconds:.1f} s")


async def worker_oom(site: Site) -> Injury:
    """No further memory is granted; who is not brought down by that is killed, as the kernel would."""
    victim = site.rng.choice(site.cluster.workers())
    _, hard = resource.prlimit(victim.pid, resource.RLIMIT_AS)
    resource.prlimit(victim.pid, resource.RLIMIT_AS, (victim.memory_info().rss, hard))
    _, alive = await asyncio.to_thread(psutil.wait_procs, [victim], timeout=_OUT_OF_MEMORY_SECONDS)
    if alive:
        return Injury(f"{_kill(victim)} by the kernel", replaced=1)
    return Injury(f"{victim.pid} ended by itself", replaced=1)


async def scheduler_kill(site: Site) -> Injury:
    """SIGKILL of the central scheduler."""
    victim = site.cluster.schedulers()[0]
    detail = _kill(victim)
    await asyncio.to_thread(psutil.wait_procs, [victim], timeout=5.0)
    return Injury(detail)


async def gateway_kill(site: Site) -> Injury:
    """SIGKILL of one gateway; its clients' connections break."""
    victim = site.rng.choice(site.cluster.gateways())
    detail = _kill(victim)
    await asyncio.to_thread(psutil.wait_procs, [victim], timeout=5.0)
    return Injury(detail)


async def node_loss(site: Site) -> Injury:
    """Every process of a machine is gone; another machine joins. One with replicas, if any are elsewhere."""
    cluster = site.cluster
    carried = {node.name: 0 for node in cluster.nodes.workers}
    for worker in cluster.workers():
        carried[cluster.node_of(worker).name] += 1
    total = sum(carried.values())
    nodes = [node for node in cluster.nodes.workers if 0 < carried[node.name] < total]
    victim = site.rng.choice(nodes or [node for node in cluster.nodes.workers if not carried[node.name]])
    await asyncio.to_thread(cluster.nodes.kill, victim)
    await asyncio.sleep(site.rng.uniform(0.0, 0.1) * site.outage_seconds)
    added = await asyncio.to_thread(cluster.nodes.add_and_wait)
    detail = f"{victim.name} with {carried[victim.name]} replicas, then {added.name} joined"
    return Injury(detail, replaced=carried[victim.name])


async def rolling_restart(site: Site) -> Injury:
    """An operator restarts all replicas, one after the other, each drained first."""
    running = site.cluster.running
    if running is None:
        raise RuntimeError("the cluster has not been started")
    before = set((await site.cluster.health())["replicas"])
    os.kill(running.process.pid, signal.SIGUSR1)
    try:
        async with asyncio.timeout(_RESTART_SECONDS):
            while before & set((await site.cluster.health())["replicas"]):  # noqa: ASYNC110 it must be asked
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise NotRecovered(f"a rolling restart was not over after {_RESTART_SECONDS:.0f} s") from None
    return Injury(f"{len(before)} replicas", replaced=len(before))


def _kill(victim: psutil.Process) -> str:
    os.kill(victim.pid, signal.SIGKILL)
    return str(victim.pid)
