"""Single processes die under load; no client notices."""

import asyncio
import signal
from typing import Any

import httpx
import psutil
import pytest

from easel.cluster.lifecycle import RunningCluster
from tests.end_to_end.load import GATEWAY, SCHEDULER, WORKER, Load, eventually, kill, processes_named

pytestmark = pytest.mark.end_to_end

COUNTS = [f"count {start:03d} by {step}" for start in range(0, 480, 40) for step in (3, 8)]
MOST_ROUNDS = 400  # of a second or so
MOST_VICTIMS = 5


def health(cluster: RunningCluster) -> dict[str, Any]:
    return httpx.get(f"{cluster.base_url}/health", timeout=10, trust_env=False).json()


def answers(cluster: RunningCluster) -> bool:
    try:
        return health(cluster)["status"] == "ok"
    except httpx.TransportError:
        return False


@pytest.mark.asyncio
async def test_every_request_survives_a_worker_killed_under_load(cluster: RunningCluster) -> None:
    undisturbed = Load(cluster.base_url, COUNTS)
    await undisturbed.run()
    resumed = health(cluster)["resumed"]
    for _ in range(MOST_VICTIMS):  # one may have finished all of its own when it dies
        await _survive(cluster, undisturbed.texts)
        if health(cluster)["resumed"] > resumed:
            break
        eventually(lambda: len(health(cluster)["replicas"]) == 2, "the replacement of the victim")
    assert health(cluster)["resumed"] > resumed, f"of {MOST_VICTIMS} victims none had a request to resume"


async def _survive(cluster: RunningCluster, texts: list[str]) -> None:
    victim = processes_named(cluster.process.pid, WORKER)[0]
    unfinished: list[int] = []

    def kill_once(load: Load) -> None:
        if not unfinished and load.chunks > len(COUNTS):
            unfinished.append(load.unfinished)
            kill(victim)

    disturbed = Load(cluster.base_url, COUNTS, on_chunk=kill_once)
    await disturbed.run()
    assert unfinished[0] > 0
    assert not victim.is_running()
    assert disturbed.unfinished == 0
    assert disturbed.texts == texts


def test_a_dead_worker_is_replaced(cluster: RunningCluster) -> None:
    eventually(lambda: len(health(cluster)["replicas"]) == 2, "the replacement of an earlier victim")
    before = set(health(cluster)["replicas"])
    kill(processes_named(cluster.process.pid, WORKER)[0])
    eventually(lambda: before - set(health(cluster)["replicas"]) != set(), "the loss")
    eventually(lambda: len(health(cluster)["replicas"]) == 2, "the replacement")
    assert set(health(cluster)["replicas"]) != before


@pytest.mark.asyncio
async def test_requests_survive_the_schedulers_death(cluster: RunningCluster) -> None:
    undisturbed = Load(cluster.base_url, COUNTS[:8])
    await undisturbed.run()
    victim = processes_named(cluster.process.pid, SCHEDULER)[0]
    killed: list[int] = []

    def kill_once(load: Load) -> None:
        if not killed:
            killed.append(victim.pid)
            kill(victim)

    disturbed = Load(cluster.base_url, COUNTS[:8], on_chunk=kill_once)
    await disturbed.run()
    again = Load(cluster.base_url, COUNTS[:8])
    await again.run()
    assert disturbed.texts == undisturbed.texts
    assert again.texts == undisturbed.texts
    assert not victim.is_running()


@pytest.mark.asyncio
async def test_all_workers_are_restarted_under_load_and_no_request_fails(cluster: RunningCluster) -> None:
    eventually(lambda: len(health(cluster)["replicas"]) == 2, "the replacement of an earlier victim")
    undisturbed = Load(cluster.base_url, COUNTS)
    await undisturbed.run()
    before = set(health(cluster)["replicas"])
    cluster.process.send_signal(signal.SIGUSR1)
    rounds = 0
    while before & set(health(cluster)["replicas"]) or len(health(cluster)["replicas"]) < 2:
        disturbed = Load(cluster.base_url, COUNTS)
        await asyncio.wait_for(disturbed.run(), timeout=60)
        assert disturbed.texts == undisturbed.texts
        rounds += 1
        assert rounds < MOST_ROUNDS, "the restart has not come to an end"
    assert rounds > 2


def test_a_dead_gateway_is_back_on_the_same_port(cluster: RunningCluster) -> None:
    victim = processes_named(cluster.process.pid, GATEWAY)[0]
    kill(victim)
    eventually(lambda: not victim.is_running(), "the gateway's death")
    eventually(lambda: answers(cluster), "the gateway's return")
    eventually(lambda: len(health(cluster)["replicas"]) == 2, "both replicas' reports")
    assert victim.pid not in {process.pid for process in processes_named(cluster.process.pid, GATEWAY)}


def test_without_its_journal_the_cluster_serves_and_says_so(cluster: RunningCluster) -> None:
    valkey = next(
        process
        for process in psutil.Process(cluster.process.pid).children(recursive=True)
        if "valkey" in process.exe()
    )
    valkey.suspend()
    try:
        eventually(lambda: health(cluster)["status"] == "degraded", "the notice")
        load = Load(cluster.base_url, COUNTS[:4])
        asyncio.run(load.run())
        assert load.unfinished == 0
    finally:
        valkey.resume()
    eventually(lambda: health(cluster)["status"] == "ok", "the journal's return")
