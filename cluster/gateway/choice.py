"""One choice of a response: runs its request and turns blocks of tokens into text."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from easel.cluster.gateway.backend import Backend
from easel.cluster.gateway.detokenizer import Detokenizer
from easel.cluster.gateway.errors import Interrupted
from easel.cluster.gateway.metrics import BlockWatch
from easel.cluster.gateway.stop_strings import StopStrings
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import FinishReason, Request


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one committed block added to a choice."""

    choice: int
    text: str
    first: bool
    finish: FinishReason | None


@dataclass(frozen=True, slots=True)
class CanvasDelta:
    """The canvas of a choice after one step."""

    choice: int
    snapshot: CanvasSnapshot


Delta = TextDelta | CanvasDelta


@dataclass(slots=True)
class Choice:
    """State of one choice. `run` may be used once."""

    index: int
    request: Request
    detokenizer: Detokenizer
    stops: StopStrings
    watch: BlockWatch
    text: str = ""
    events: list[BlockEvent] = field(default_factory=list[BlockEvent])
    finish: FinishReason | None = None

    async def run(self, backend: Backend) -> AsyncGenerator[Delta, None]:
        """Deltas until the request ends or a stop string is found, which cancels the rest.

        Raises what the backend raises, and Interrupted when the request ends for no reason of its own.
        """
        stream = backend.stream(self.request)
        try:
            async for event in stream:
                if isinstance(event, CanvasSnapshot):
                    yield CanvasDelta(self.index, event)
                    continue
                yield self._take(event)
                if self.finish is not None:
                    return
        finally:
            await close(stream)
        raise Interrupted(self.request.request_id, "its stream ended before it was finished")

    def _take(self, event: BlockEvent) -> TextDelta:
        if event.finish is FinishReason.CANCELLED:
            raise Interrupted(self.request.request_id, "the server cancelled it")
        first = not self.events
        self.events.append(event)
        self.watch.block(event)
        text = self._new_text(event)
        self.text += text
        self.finish = FinishReason.STOP if self.stops.found else event.finish
        return TextDelta(self.index, text, first, self.finish)

    def _new_text(self, event: BlockEvent) -> str:
        text = self.stops.feed(self.detokenizer.feed(event.tokens))
        if event.finish is not None and not self.stops.found:
            text += self.stops.feed(self.detokenizer.flush())
            text += self.stops.flush()
        return text


def choices_of(
    requests: Sequence[Request],
    stops: Sequence[str],
    tokenizer: ChatTokenizer,
    new_watch: Callable[[], BlockWatch],
) -> list[Choice]:
    """A choice for each request, in order."""
    return [
        Choice(index, request, Detokenizer(tokenizer.decode), StopStrings(stops), new_watch())
        for index, request in enumerate(requests)
    ]


async def close(stream: AsyncIterator[object]) -> None:
    """Close an async generator now; the backend takes that as a cancellation."""
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()
