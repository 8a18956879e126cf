"""How far replicas are with loading: told by each of them, shown by whoever starts the cluster."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Loaded = tuple[int, int]  # tensors read, tensors in all

_REPORT_SECONDS = 0.2
_POLL_SECONDS = 0.25


class LoadingReports:
    """Sends a replica's progress on, a few times a second however many tensors there are."""

    def __init__(self, send: Callable[[int, int], Awaitable[None]]) -> None:
        self._send = send
        self._latest: Loaded | None = None
        self._sent: Loaded | None = None

    def advance(self, done: int, total: int) -> None:
        """Takes note; may be called from any thread and returns at once."""
        self._latest = (done, total)

    async def run_beside(self, loading: Awaitable[object]) -> None:
        """Reports while `loading` goes on, and once more at its end. Raises what it raises."""
        task = asyncio.ensure_future(loading)
        while not task.done():
            await asyncio.wait({task}, timeout=_REPORT_SECONDS)
            await self._report()
        await task

    async def _report(self) -> None:
        latest = self._latest
        if latest is not None and latest != self._sent:
            await self._send(*latest)
            self._sent = latest


@contextmanager
def loading_bars(read: Callable[[], Mapping[str, Loaded]], console: Console) -> Generator[None]:
    """Shows a bar a replica while the body runs. `read` is polled; it is called from another thread."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    ended = threading.Event()
    with Progress(*columns, console=console, transient=True) as progress:
        watcher = threading.Thread(target=_watch, args=(read, progress, ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def _watch(read: Callable[[], Mapping[str, Loaded]], progress: Progress, ended: threading.Event) -> None:
    tasks: dict[str, TaskID] = {}
    while not ended.wait(_POLL_SECONDS):
        for replica_id, (done, total) in sorted(read().items()):
            if replica_id not in tasks:
                tasks[replica_id] = progress.add_task(f"replica {len(tasks) + 1}, tensors", total=total)
            progress.update(tasks[replica_id], completed=done, total=total)
