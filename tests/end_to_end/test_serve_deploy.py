"""`serve deploy` on a Ray that others started: it answers, its replicas follow the load, nothing is lost."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from easel.cluster.ray_environment import free_port
from tests.end_to_end.load import GATEWAY, WORKER, Load, eventually, processes_named
from tests.end_to_end.ray_head import RayHead

pytestmark = pytest.mark.end_to_end

FILE = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"
SCHEDULER = "ray::DeployedScheduler"
JOURNAL = "ray::JournalActor"
COUNTS = [f"count {start:03d} by {step}" for start in range(0, 480, 60) for step in (3, 8)]
SETTINGS = {
    "engine": {"slots": 4, "dtype": "float32"},
    "scheduler": {"target_seconds": 1.0},
    "autoscaling": {
        "enabled": True,
        "min_replicas": 1,
        "max_replicas": 2,
        "up_delay_seconds": 2.0,
        "down_delay_seconds": 5.0,
    },
}


class Deployed:
    """An application on a Ray head of its own, and the file that describes it."""

    def __init__(self, head: RayHead) -> None:
        self.head = head
        self.base_url = f"http://127.0.0.1:{free_port()}"
        self._written = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        self.settings: dict[str, Any] = self._written["applications"][0]["args"]
        self.deploy(SETTINGS | {"port": int(self.base_url.rpartition(":")[2])})

    def deploy(self, args: dict[str, Any]) -> None:
        self.settings |= args
        file = self.head.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(self._written), encoding="utf-8")
        self.head.serve("deploy", str(file))

    def replicas(self) -> list[str]:
        try:
            health = httpx.get(f"{self.base_url}/health", timeout=10, trust_env=False).json()
        except httpx.TransportError:
            return []
        return list(health.get("replicas", ()))


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    with RayHead() as head:
        deployed = Deployed(head)
        eventually(lambda: len(deployed.replicas()) == 1, "the first replica", seconds=120)
        yield deployed


def processes(deployed: Deployed, *names: str) -> list[psutil.Process]:
    return [one for name in names for one in processes_named(deployed.head.pid, name)]


def test_a_deployed_application_answers(deployed: Deployed) -> None:
    body = {"model": "easel-demo", "messages": [{"role": "user", "content": "add 0471+2938"}]}
    answer = httpx.post(
        f"{deployed.base_url}/v1/chat/completions", json=body, timeout=60, trust_env=False
    ).json()
    assert answer["choices"][0]["message"]["content"] == "03409"


@pytest.mark.asyncio
async def test_replicas_come_and_go_with_the_load_and_no_request_is_lost(deployed: Deployed) -> None:
    undisturbed = Load(deployed.base_url, COUNTS)
    await undisturbed.run()
    rounds, seen = 0, 1
    async with asyncio.timeout(150):
        while seen < 2:
            load = Load(deployed.base_url, COUNTS)
            await load.run()
            assert load.texts == undisturbed.texts
            rounds += 1
            seen = len(deployed.replicas())
        while seen > 1:
            load = Load(deployed.base_url, COUNTS[:1])
            await load.run()
            assert load.texts == undisturbed.texts[:1]
            seen = len(deployed.replicas())
    assert rounds > 1


def test_a_wrong_setting_is_named_and_what_was_deployed_goes_on(deployed: Deployed) -> None:
    deployed.deploy({"slots": 4})
    eventually(lambda: "DEPLOY_FAILED" in deployed.head.serve("status"), "the refusal", seconds=90)
    assert "slots: Extra inputs are not permitted" in deployed.head.serve("status")
    assert len(deployed.replicas()) == 1
    deployed.settings.pop("slots")


@pytest.mark.asyncio
async def test_another_version_replaces_every_replica_and_no_request_is_lost(deployed: Deployed) -> None:
    undisturbed = Load(deployed.base_url, COUNTS[:4])
    await undisturbed.run()
    family = processes(deployed, WORKER, GATEWAY, SCHEDULER)
    deployed.deploy({"scheduler": {"target_seconds": 1.0, "max_waiting": 99}})
    async with asyncio.timeout(180):
        while any(one.is_running() for one in family):
            load = Load(deployed.base_url, COUNTS[:4])
            await load.run()
            assert load.texts == undisturbed.texts
    assert len(processes(deployed, GATEWAY)) == 1


def test_a_deleted_application_takes_its_scheduler_and_journal_along(deployed: Deployed) -> None:
    actors = processes(deployed, SCHEDULER, JOURNAL)
    assert len(actors) == 2
    family = [one for actor in actors for one in (actor, *actor.children(recursive=True))]
    assert any("valkey-server" in one.name() for one in family)
    deployed.head.serve("shutdown", "--yes")
    _, alive = psutil.wait_procs(family, timeout=90)
    assert alive == [], json.dumps([one.cmdline() for one in alive])
