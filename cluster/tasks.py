"""Ending asyncio tasks for certain."""

import asyncio
from collections.abc import Iterable
from typing import Any

_PAUSE_SECONDS = 0.2


async def end_tasks(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel and wait until all have ended, whatever they return or raise.

    Again and again: a library that is cancelled in the midst of an exchange may turn that into an
    error of its own, which its caller takes for an outage and goes on.
    """
    tasks = list(tasks)
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_PAUSE_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain that nobody did
