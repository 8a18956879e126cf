"""Server-sent events: one chunk per committed block."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from easel.cluster.gateway.choice import Delta, TextDelta
from easel.cluster.gateway.disconnect import unless_disconnected
from easel.cluster.gateway.errors import ApiError, ClientGone
from easel.cluster.gateway.generation import Generation

DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """A stream of events that closes its source, whichever way it ends."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        source: AsyncGenerator[Delta, None],
        headers: Mapping[str, str],
    ) -> None:
        self.events = events
        self.source = source
        self.status_code = 200
        self.background = None
        # A proxy that buffers would turn blocks as they settle into one late answer.
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_disconnected(receive, self._send(send))
        except ClientGone:
            pass  # nobody is left to tell
        finally:
            await self.events.aclose()
            # Closing events that never began would leave their source open.
            await self.source.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self.events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def stream_response(
    generation: Generation,
    deltas: AsyncGenerator[Delta, None],
    usage_wanted: bool,
    explain: Callable[[BaseException], ApiError],
    headers: Mapping[str, str],
) -> EventStream:
    """The response, once the first delta is there: until then an error can still be a status.

    Raises what the first delta raises.
    """
    first = await anext(deltas)
    return EventStream(events_of(generation, first, deltas, usage_wanted, explain), deltas, headers)


async def events_of(
    generation: Generation,
    first: Delta,
    rest: AsyncGenerator[Delta, None],
    usage_wanted: bool,
    explain: Callable[[BaseException], ApiError],
) -> AsyncGenerator[bytes, None]:
    """Chunks, then `[DONE]`; or, when something fails on the way, an `error` event and no `[DONE]`."""
    ended = 0
    try:
        async for delta in _chain(first, rest):
            chunk = generation.chunk(delta)
            ended += isinstance(delta, TextDelta) and delta.finish is not None
            if usage_wanted:
                chunk["usage"] = None
            elif ended == len(generation.choices):
                chunk |= generation.totals()
            yield encode(chunk)
        if usage_wanted:
            yield encode(generation.last_chunk())
        yield DONE
    except Exception as error:  # noqa: BLE001 the status is sent already: the client reads it from the stream
        yield encode(explain(error).body(), event="error")


async def _chain(first: Delta, rest: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    yield first
    async for delta in rest:
        yield delta


def encode(data: Mapping[str, object], event: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
