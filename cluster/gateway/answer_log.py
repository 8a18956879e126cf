"""The blocks of one answer as one gateway has them: one writer, and readers each at their own pace."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from easel.cluster.gateway.choice import CanvasDelta, Choice, Delta, TextDelta
from easel.cluster.journal_records import JournaledRequest
from easel.scheduler.messages import BlockEvent

CANVASES_KEPT = 4  # of each choice, for a reader that is slow; the oldest are dropped


@dataclass(slots=True)
class AnswerLog:
    """Grows by committed blocks, at most as many as its requests may have."""

    choices: list[Choice]
    buffer: int | None  # blocks of a choice ahead of the fastest reader; None: any number
    error: Exception | None = None
    readers: "list[Reader]" = field(default_factory=list["Reader"])
    _advanced: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.finish is not None for choice in self.choices)

    @property
    def ended(self) -> bool:
        """Whether nothing will be added any more."""
        return self.finished or self.error is not None

    def take(self, index: int, event: BlockEvent) -> None:
        """Add the block that a choice's backend brought. Raises Interrupted."""
        self.choices[index].take(event)
        self._tell()

    def show(self, canvas: CanvasDelta) -> None:
        """Pass on a canvas to those who draw it; it is not kept for others."""
        for reader in self.readers:
            reader.show(canvas)

    def take_journaled(self, requests: Sequence[JournaledRequest | None]) -> None:
        """Add those of the journal's blocks that are not there yet."""
        for choice, request in zip(self.choices, requests, strict=True):
            blocks = request.blocks if request is not None else ()
            for block in blocks[len(choice.events) :]:
                if choice.finish is None:
                    choice.take(block, journaled=True)
        self._tell()

    def fail(self, error: Exception) -> None:
        """End it for its readers. What has ended already stays as it is."""
        if not self.ended:
            self.error = error
            self._tell()

    async def room(self, index: int) -> None:
        """Waits while the fastest reader is too far behind."""
        while self.buffer is not None and self._lead(index) >= self.buffer:
            self._advanced.clear()
            await self._advanced.wait()

    def advanced(self) -> None:
        """A reader has taken something, or has left."""
        self._advanced.set()

    def _lead(self, index: int) -> int:
        there = len(self.choices[index].deltas)
        return there - max((reader.seen[index] for reader in self.readers), default=there)

    def _tell(self) -> None:
        for reader in self.readers:
            reader.changed.set()


class Reader:
    """Deltas of an answer after those its client has seen. To be closed, even if never read."""

    def __init__(
        self,
        log: AnswerLog,
        on_close: "Callable[[Reader], Awaitable[None]]",
        seen: Sequence[int] = (),
        canvases: bool = False,
    ) -> None:
        self.seen = list(seen) or [0] * len(log.choices)  # blocks of each choice
        self.changed = asyncio.Event()
        self._log = log
        self._on_close = on_close
        self._canvases: dict[int, deque[CanvasDelta]] = {}
        if canvases:
            kept = range(len(log.choices))
            self._canvases = {index: deque(maxlen=CANVASES_KEPT) for index in kept}
        log.readers.append(self)

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        """Raises what ended the answer, once all that came before has been read."""
        while (delta := self._next()) is None:
            if self.at_end:
                raise StopAsyncIteration
            if self._log.error is not None:
                raise self._log.error
            self.changed.clear()
            await self.changed.wait()
        return delta

    @property
    def at_end(self) -> bool:
        """Whether every choice has ended and all of it has been read."""
        ended = self._log.finished
        return ended and all(
            seen >= len(choice.deltas) for seen, choice in zip(self.seen, self._log.choices, strict=True)
        )

    def show(self, canvas: CanvasDelta) -> None:
        """Keep a canvas, if its client draws them."""
        if canvas.choice in self._canvases:
            self._canvases[canvas.choice].append(canvas)
            self.changed.set()

    async def aclose(self) -> None:
        if self in self._log.readers:
            self._log.readers.remove(self)
            self._log.advanced()
            await self._on_close(self)

    def _next(self) -> Delta | None:
        for choice in self._log.choices:
            delta = self._canvas(choice.index) or self._block(choice)
            if delta is not None:
                return delta
        return None

    def _canvas(self, index: int) -> CanvasDelta | None:
        """The oldest canvas kept of the block that comes next."""
        kept = self._canvases.get(index, ())
        while kept and kept[0].snapshot.block_index <= self.seen[index]:
            canvas = self._canvases[index].popleft()
            if canvas.snapshot.block_index == self.seen[index]:
                return canvas
        return None

    def _block(self, choice: Choice) -> TextDelta | None:
        at = self.seen[choice.index]
        if at >= len(choice.deltas):
            return None
        self.seen[choice.index] += 1
        self._log.advanced()
        return choice.deltas[at]
