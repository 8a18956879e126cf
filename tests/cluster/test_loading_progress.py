"""Progress of loading, from a replica's thread to a bar on the screen."""

import asyncio
import io
import threading

import pytest
from rich.console import Console

from easel.cluster.loading_progress import LoadingReports, loading_bars


@pytest.mark.asyncio
async def test_many_tensors_become_few_reports_of_which_the_last_is_complete() -> None:
    sent: list[tuple[int, int]] = []

    async def send(done: int, total: int) -> None:
        sent.append((done, total))

    reports = LoadingReports(send)

    def load() -> None:
        for done in range(1, 1001):
            reports.advance(done, 1000)

    await reports.run_beside(asyncio.to_thread(load))
    assert sent[-1] == (1000, 1000)
    assert len(sent) < 5


@pytest.mark.asyncio
async def test_what_loading_raises_is_passed_on() -> None:
    async def send(done: int, total: int) -> None: ...

    def load() -> None:
        raise OSError("no such shard")

    with pytest.raises(OSError, match="no such shard"):
        await LoadingReports(send).run_beside(asyncio.to_thread(load))


def test_every_replica_has_a_bar_while_loading_goes_on() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    asked = threading.Semaphore(0)

    def read() -> dict[str, tuple[int, int]]:
        asked.release()
        return {"b": (40, 57), "a": (7, 57)}

    with loading_bars(read, console):
        assert asked.acquire(timeout=10)
        assert asked.acquire(timeout=10), "the first answer is on the screen by now"
    screen = console.file
    assert isinstance(screen, io.StringIO)
    shown = screen.getvalue()
    assert "replica 1, tensors" in shown
    assert "replica 2, tensors" in shown
    assert "40/57" in shown
