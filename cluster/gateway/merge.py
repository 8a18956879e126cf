"""Several async generators read at once, as one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    """One generator is exhausted, or has failed with `error`."""

    error: BaseException | None


async def merge(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """Items in the order they come. The first failure ends all; closing this closes all."""
    queue: asyncio.Queue[T | _End] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                running -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(stream: AsyncGenerator[T, None], queue: asyncio.Queue[T | _End]) -> None:
    error: BaseException | None = None
    try:
        async for item in stream:
            queue.put_nowait(item)
    except Exception as caught:  # noqa: BLE001 handed to the reader, which raises it
        error = caught
    finally:
        await stream.aclose()
        queue.put_nowait(_End(error))
