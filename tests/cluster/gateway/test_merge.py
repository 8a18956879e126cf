import asyncio
from collections.abc import AsyncGenerator

import pytest

from easel.cluster.gateway.merge import merge

pytestmark = pytest.mark.asyncio


async def numbers(*values: int, log: list[str] | None = None) -> AsyncGenerator[int, None]:
    try:
        for value in values:
            await asyncio.sleep(0)
            yield value
    finally:
        if log is not None:
            log.append("closed")


async def forever(log: list[str]) -> AsyncGenerator[int, None]:
    try:
        yield 0
        await asyncio.Event().wait()
    finally:
        log.append("closed")


async def failing() -> AsyncGenerator[int, None]:
    yield 1
    raise ValueError("broken")


async def test_every_item_of_every_stream_comes_once_and_in_its_order() -> None:
    items = [item async for item in merge([numbers(1, 2, 3), numbers(10, 20), numbers()])]
    assert sorted(items) == [1, 2, 3, 10, 20]
    assert [item for item in items if item < 10] == [1, 2, 3]
    assert [item for item in items if item >= 10] == [10, 20]


async def test_the_first_failure_is_raised_and_closes_the_others() -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match="broken"):
        async for _ in merge([forever(log), failing()]):
            pass
    assert log == ["closed"]


async def test_closing_closes_every_stream() -> None:
    log: list[str] = []
    merged = merge([forever(log), numbers(1, log=log), forever(log)])
    async for item in merged:
        assert item in (0, 1)
        break
    await merged.aclose()
    assert log == ["closed"] * 3


async def test_merging_nothing_is_empty() -> None:
    assert [item async for item in merge(list[AsyncGenerator[int, None]]())] == []
