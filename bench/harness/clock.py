"""Time, as the load is told it: seconds since it began."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """What tests replace."""

    def now(self) -> float:
        """Seconds since the load began."""
        ...

    async def sleep(self, seconds: float) -> None: ...


@dataclass(slots=True)
class WallClock:
    """Begins when it is made; `restart` makes now the beginning."""

    _began: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        self._began = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._began

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
