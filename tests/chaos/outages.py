"""What is done to Redis, to the wires to it, and to clocks; and the table of all faults."""

import asyncio

from tests.chaos import faults
from tests.chaos.faults import Fault, FaultKind, Injury, Site
from tests.chaos.proxy import Cut

_JUMP_SECONDS = 3600


async def redis_restart(site: Site) -> Injury:
    """Redis crashes and comes back with its data."""
    return await _restart(site, forget=False)


async def redis_wipe(site: Site) -> Injury:
    """Redis crashes and comes back empty."""
    return await _restart(site, forget=True)


async def redis_away(site: Site) -> Injury:
    """Nobody reaches Redis."""
    how = site.rng.choice(list(Cut))
    wires = site.cluster.proxy.cut(how)
    await asyncio.sleep(site.outage_seconds)
    site.cluster.proxy.mend()
    return Injury(f"{how}, {wires} connections for {site.outage_seconds:.1f} s")


async def partition(site: Site) -> Injury:
    """One worker does not reach Redis, and goes on owning its requests."""
    how, victim = site.rng.choice(list(Cut)), site.rng.choice(site.cluster.workers())
    seconds = site.rng.uniform(0.2, 0.8) * site.outage_seconds
    wires = site.cluster.proxy.cut(how, victim.pid)
    await asyncio.sleep(seconds)
    site.cluster.proxy.mend()
    return Injury(f"{how}, {wires} connections of worker {victim.pid} for {seconds:.1f} s")


async def clock_jump(site: Site) -> Injury:
    """The wall clock of a machine is off by an hour, and then right again: two jumps."""
    cluster = site.cluster
    carriers = [*cluster.schedulers(), *cluster.gateways(), *cluster.workers()]
    node = cluster.node_of(site.rng.choice(carriers))
    seconds = site.rng.choice((-1, 1)) * _JUMP_SECONDS
    node.jump(seconds)
    await asyncio.sleep(site.rng.uniform(0.1, 0.3) * site.outage_seconds)
    node.jump(0)
    await asyncio.sleep(2.0)  # until every process has looked
    return Injury(f"{node.name} by {seconds:+d} s")


async def _restart(site: Site, forget: bool) -> Injury:
    cluster = site.cluster
    seconds = site.rng.uniform(0.01, 0.1) * site.outage_seconds
    await asyncio.to_thread(cluster.valkey.kill, forget)
    cluster.proxy.reset()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(cluster.valkey.start)
    return Injury(f"away for {seconds:.1f} s")


FAULTS: dict[FaultKind, Fault] = {
    FaultKind.WORKER_KILL: faults.worker_kill,
    FaultKind.WORKER_STOP: faults.worker_stop,
    FaultKind.WORKER_HANG: faults.worker_hang,
    FaultKind.WORKER_OOM: faults.worker_oom,
    FaultKind.NODE_LOSS: faults.node_loss,
    FaultKind.SCHEDULER_KILL: faults.scheduler_kill,
    FaultKind.GATEWAY_KILL: faults.gateway_kill,
    FaultKind.REDIS_RESTART: redis_restart,
    FaultKind.REDIS_WIPE: redis_wipe,
    FaultKind.REDIS_AWAY: redis_away,
    FaultKind.PARTITION: partition,
    FaultKind.CLOCK_JUMP: clock_jump,
    FaultKind.ROLLING_RESTART: faults.rolling_restart,
}
