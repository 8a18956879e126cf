"""Tasks end, even those that take a cancellation for something else."""

import asyncio

import pytest

from easel.cluster.tasks import end_tasks

pytestmark = pytest.mark.asyncio


async def stubborn(times: int) -> str:
    """Swallows so many cancellations, as an exchange that turns them into errors does."""
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()
    return "never"


async def test_a_task_that_swallows_cancellations_is_ended_all_the_same() -> None:
    tasks = [asyncio.create_task(stubborn(times)) for times in (0, 1, 2)]
    await asyncio.sleep(0)
    await end_tasks(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_what_tasks_returned_or_raised_is_left_alone() -> None:
    async def fail() -> None:
        raise ValueError("on its own account")

    failed, done = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0, "done"))
    await asyncio.wait([failed, done])
    await end_tasks([failed, done])
    assert isinstance(failed.exception(), ValueError)
    assert done.result() == "done"
