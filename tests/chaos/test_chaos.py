"""The short version of `python -m tests.chaos`: a fault of each main kind, one seed, no client notices."""

import pytest

from tests.chaos.cluster import Size
from tests.chaos.drive import Plan, run
from tests.chaos.faults import FaultKind

KINDS = (
    FaultKind.WORKER_KILL,
    FaultKind.WORKER_STOP,
    FaultKind.SCHEDULER_KILL,
    FaultKind.REDIS_WIPE,
    FaultKind.PARTITION,
)


@pytest.mark.end_to_end
@pytest.mark.asyncio
async def test_no_client_notices_what_happens_to_the_cluster() -> None:
    plan = Plan(
        seconds=300.0,
        seed=7,
        faults=KINDS,
        clients=6,
        questions=12,
        outage_seconds=5.0,
        pause_seconds=1.0,
        once=True,
        size=Size(replicas=2),
    )
    report = await run(plan, print)
    assert report.passed, "\n".join(report.lines())
    assert {one.kind for one in report.injected} == set(KINDS)
