"""Many clients at once, and clients that leave."""

import asyncio
import re
from collections.abc import Callable

import httpx
import pytest

from easel.cluster.lifecycle import RunningCluster
from easel.demo.tasks import TaskName
from tests.end_to_end.clients import MODEL, openai_client, puzzles, user
from tests.end_to_end.load import eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.asyncio]


def load_of(cluster: RunningCluster) -> dict[str, dict[str, float]]:
    return httpx.get(f"{cluster.base_url}/health", timeout=10, trust_env=False).json()["load"]


def is_idle(cluster: RunningCluster) -> bool:
    """No slot in use, nothing waiting, and every page given back."""
    return all(
        one["slots_used"] == one["waiting"] == 0 and one["pages_available"] == one["pages"]
        for one in load_of(cluster).values()
    )


def metric(cluster: RunningCluster, name: str) -> float:
    text = httpx.get(f"{cluster.base_url}/metrics", timeout=10, trust_env=False).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def soon(condition: Callable[[], bool], what: str) -> None:
    """`eventually`, without holding up the event loop, which may have connections to close."""
    await asyncio.to_thread(eventually, condition, what)


async def test_64_requests_at_once_are_answered_as_if_alone(cluster: RunningCluster) -> None:
    tasks = [task for kind in TaskName for task in puzzles(kind, 13, seed=3)][:64]

    async def answer(prompt: str) -> str | None:
        completion = await client.chat.completions.create(model=MODEL, messages=user(prompt))
        return completion.choices[0].message.content

    async with openai_client(cluster.base_url) as client:
        together = await asyncio.gather(*(answer(task.prompt) for task in tasks))
        alone = [await answer(task.prompt) for task in tasks[::8]]
    assert together[::8] == alone
    await soon(lambda: is_idle(cluster), "an idle cluster after the load")


async def test_work_is_spread_over_the_replicas(cluster: RunningCluster) -> None:
    before = load_of(cluster)
    async with openai_client(cluster.base_url) as client:
        await client.chat.completions.create(model=MODEL, messages=user("count 100 by 3"), n=16)

    def both_worked() -> bool:
        return all(one["blocks"] > before[name]["blocks"] for name, one in load_of(cluster).items())

    await soon(both_worked, "work at both replicas")
    assert both_worked()


async def test_a_client_that_leaves_frees_its_slots(cluster: RunningCluster) -> None:
    cancelled = metric(cluster, "easel_generations_cancelled_total")
    async with openai_client(cluster.base_url) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=user("count 100 by 3"), n=64, max_tokens=400, temperature=10, stream=True
        )
        await anext(aiter(stream))
        await stream.close()
    await soon(lambda: is_idle(cluster), "free slots after a client left")
    await soon(
        lambda: metric(cluster, "easel_generations_cancelled_total") == cancelled + 1,
        "a counted cancellation",
    )
    assert metric(cluster, "easel_requests_in_flight") == 0


async def test_a_client_that_leaves_before_an_answer_frees_its_slots(cluster: RunningCluster) -> None:
    cancelled = metric(cluster, "easel_generations_cancelled_total")
    async with openai_client(cluster.base_url) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(
                model=MODEL, messages=user("count 100 by 3"), n=64, max_tokens=400, temperature=10
            )
        )
        await soon(lambda: metric(cluster, "easel_requests_in_flight") == 1, "a request in flight")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await soon(
        lambda: metric(cluster, "easel_generations_cancelled_total") == cancelled + 1,
        "a counted cancellation",
    )
    await soon(lambda: is_idle(cluster), "free slots after a client left")
    assert metric(cluster, "easel_requests_in_flight") == 0
