"""Whole requests through every process."""

import httpx
import pytest

from easel.cluster.lifecycle import RunningCluster
from tests.end_to_end.load import Load

pytestmark = pytest.mark.end_to_end

COUNTS = [f"count {start:03d} by {step}" for start in range(0, 400, 50) for step in (1, 7)]


def test_both_replicas_report_to_the_scheduler(cluster: RunningCluster) -> None:
    health = httpx.get(f"{cluster.base_url}/health", trust_env=False).json()
    assert len(health["replicas"]) == 2
    assert health["journal"] == "ok"


@pytest.mark.asyncio
async def test_an_answer_does_not_depend_on_what_runs_beside_it(cluster: RunningCluster) -> None:
    together = Load(cluster.base_url, COUNTS)
    await together.run()
    for prompt, text in zip(COUNTS[:3], together.texts, strict=False):
        alone = Load(cluster.base_url, [prompt])
        await alone.run()
        assert alone.texts == [text]
    assert together.unfinished == 0
