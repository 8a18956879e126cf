"""One choice of an answer: turns its blocks of tokens into text."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from easel.cluster.gateway.detokenizer import Detokenizer
from easel.cluster.gateway.errors import Interrupted
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
    seconds: float = 0.0  # from the answer's beginning to the step's arrival at the gateway


Delta = TextDelta | CanvasDelta


@dataclass(slots=True)
class Choice:
    """State of one choice. The same blocks make the same text and deltas, wherever they are fed."""

    index: int
    request: Request
    detokenizer: Detokenizer
    stops: StopStrings
    text: str = ""
    events: list[BlockEvent] = field(default_factory=list[BlockEvent])
    deltas: list[TextDelta] = field(default_factory=list[TextDelta])  # one for each event
    finish: FinishReason | None = None
    resumed: int = 0  # blocks that came from the journal

    def take(self, event: BlockEvent, *, journaled: bool = False) -> None:
        """Add the next block. Once a stop string is found the choice is finished, whatever follows.

        Raises Interrupted when the request ends for no reason of its own.
        """
        if event.finish is FinishReason.CANCELLED:
            raise Interrupted(self.request.request_id, "the server cancelled it")
        text = self._new_text(event)
        self.text += text
        self.finish = FinishReason.STOP if self.stops.found else event.finish
        self.deltas.append(TextDelta(self.index, text, not self.events, self.finish))
        self.events.append(event)
        self.resumed += journaled

    def _new_text(self, event: BlockEvent) -> str:
        text = self.stops.feed(self.detokenizer.feed(event.tokens))
        if event.finish is not None and not self.stops.found:
            text += self.stops.feed(self.detokenizer.flush())
            text += self.stops.flush()
        return text


def choices_of(requests: Sequence[Request], stops: Sequence[str], tokenizer: ChatTokenizer) -> list[Choice]:
    """A choice for each request, in order."""
    return [
        Choice(index, request, Detokenizer(tokenizer.decode), StopStrings(stops))
        for index, request in enumerate(requests)
    ]


async def close(stream: AsyncIterator[object]) -> None:
    """Close an async generator now; the backend takes that as a cancellation."""
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()
