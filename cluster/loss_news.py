"""Replicas that are gone, and the news of it for whoever waits."""

import asyncio

LONGEST_WAIT_SECONDS = 10.0


class LossNews:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._lost: list[str] = []
        self._expected = 0
        self._changed = asyncio.Condition()

    @property
    def unexpected(self) -> int:
        """Those that had not been asked to go."""
        return len(self._lost) - self._expected

    async def add(self, replica_id: str, *, expected: bool) -> None:
        """Tell all who wait; what was sent there has to go elsewhere in either case."""
        async with self._changed:
            self._lost.append(replica_id)
            self._expected += expected
            self._changed.notify_all()

    async def after(self, known: int) -> tuple[int, list[str]]:
        """Wait for losses after the first `known`; a negative or too high count starts anew.

        The new count, and who they are; nobody if nothing happens for long.
        """
        if not 0 <= known <= len(self._lost):
            return len(self._lost), []
        async with self._changed:
            try:
                async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                    await self._changed.wait_for(lambda: len(self._lost) > known)
            except TimeoutError:
                return known, []
        return len(self._lost), self._lost[known:]
