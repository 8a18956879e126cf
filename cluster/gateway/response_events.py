"""The numbered events of a streamed response: the same blocks make the same events."""

from collections.abc import AsyncGenerator, Callable, Iterable

from easel.cluster.gateway.answer_errors import AnswerCancelled
from easel.cluster.gateway.answer_log import Reader
from easel.cluster.gateway.choice import TextDelta
from easel.cluster.gateway.errors import ApiError
from easel.cluster.gateway.response_objects import ResponseStatus, ResponseView, part
from easel.cluster.gateway.statistics import Json
from easel.cluster.gateway.streaming import encode


class ResponseEvents:
    """Makes events in their order, and numbers them from 0."""

    def __init__(self, view: ResponseView) -> None:
        self._view = view
        self._number = 0
        self._place: Json = {"item_id": view.item_id, "output_index": 0, "content_index": 0}

    def opening(self) -> list[Json]:
        """All that precedes the first block."""
        view = self._view
        first = ResponseStatus.QUEUED if view.background else ResponseStatus.IN_PROGRESS
        events = [self._event("response.created", response=view.bare(first))]
        if view.background:
            events.append(self._event("response.queued", response=view.bare(first)))
        in_progress = view.bare(ResponseStatus.IN_PROGRESS)
        item = view.item("", ResponseStatus.IN_PROGRESS)
        return [
            *events,
            self._event("response.in_progress", response=in_progress),
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", **self._place, part=part("")),
        ]

    def block(self, delta: TextDelta) -> Json:
        """One block, also one without text, so that an event's number tells its block."""
        return self._event("response.output_text.delta", **self._place, delta=delta.text, logprobs=[])

    def closing(self) -> list[Json]:
        """All that follows the last block."""
        view, status = self._view, self._view.final_status
        text = view.choice.text
        return [
            self._event("response.output_text.done", **self._place, text=text, logprobs=[]),
            self._event("response.content_part.done", **self._place, part=part(text)),
            self._event("response.output_item.done", output_index=0, item=view.item(text, status)),
            self._event(f"response.{status.value}", response=view.whole(status)),
        ]

    def failure(self, error: ApiError) -> Json:
        """What ends a stream early.

        A background response has ended with it. Any other one is left where it is, and whoever
        asks for what follows the last block takes it up again.
        """
        if isinstance(error, AnswerCancelled):
            status = ResponseStatus.CANCELLED
            return self._event("response.cancelled", response=self._view.whole(status))
        if self._view.background:
            whole = self._view.whole(ResponseStatus.FAILED, error_of(error))
            return self._event("response.failed", response=whole)
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _event(self, kind: str, **fields: object) -> Json:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event


def error_of(error: ApiError) -> Json:
    """The `error` of a failed response; OpenAI knows few codes."""
    return {
        "code": "rate_limit_exceeded" if error.status == 429 else "server_error",
        "message": error.message,
    }


async def stream_of(
    view: ResponseView,
    reader: Reader,
    first: TextDelta | None,
    after: int,
    explain: Callable[[BaseException], ApiError],
) -> AsyncGenerator[bytes, None]:
    """Events numbered above `after`. `first`: a delta that has been read already."""
    events = ResponseEvents(view)
    for event in _encoded(events.opening(), after):
        yield event
    try:
        if first is not None:
            for event in _encoded([events.block(first)], after):
                yield event
        async for delta in reader:
            if isinstance(delta, TextDelta):
                for event in _encoded([events.block(delta)], after):
                    yield event
        closing = events.closing()
    except Exception as error:  # noqa: BLE001 the status is sent: the client reads it from the stream
        closing = [events.failure(explain(error))]
    for event in _encoded(closing, after):
        yield event


def _encoded(events: Iterable[Json], after: int) -> list[bytes]:
    return [
        encode(event, event=str(event["type"]), event_id=str(event["sequence_number"]))
        for event in events
        if int(str(event["sequence_number"])) > after
    ]
