"""Server-sent events: one chunk per committed block."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from easel.cluster.gateway.answer_ids import EventId
from easel.cluster.gateway.answer_log import Reader
from easel.cluster.gateway.bodies import UsageWanted
from easel.cluster.gateway.choice import Delta, TextDelta
from easel.cluster.gateway.disconnect import unless_disconnected
from easel.cluster.gateway.errors import ApiError, ClientGone
from easel.cluster.gateway.generation import Generation

DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """A stream of events that closes its reader, whichever way it ends.

    A client that takes nothing for `stall_seconds` is cut off; it knows where to go on.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        reader: Reader,
        stall_seconds: float,
        headers: Mapping[str, str],
    ) -> None:
        self.events = events
        self.reader = reader
        self.stall_seconds = stall_seconds
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
            await self.reader.aclose()

    async def _send(self, send: Send) -> None:
        async def patiently(message: Message) -> None:
            try:
                async with asyncio.timeout(self.stall_seconds):
                    await send(message)
            except TimeoutError:
                raise ClientGone from None

        await patiently(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        async for event in self.events:
            await patiently({"type": "http.response.body", "body": event, "more_body": True})
        await patiently({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass(frozen=True, slots=True)
class ChunkStream:
    """A stream of a generation's chunks, from where its reader begins."""

    generation: Generation
    reader: Reader
    usage: UsageWanted
    numbered: bool  # chunks say what to go on after
    explain: Callable[[BaseException], ApiError]

    async def first(self) -> Delta | None:
        """The first delta: until it is there an error can still be a status. None: there is none."""
        return await anext(self.reader, None)

    async def events(self, first: Delta | None) -> AsyncGenerator[bytes, None]:
        """Chunks, then `[DONE]`; or, when something fails on the way, an `error` event and no `[DONE]`."""
        try:
            if first is not None:
                yield self._event(first)
                async for delta in self.reader:
                    yield self._event(delta)
            if self.usage is not UsageWanted.WITH_THE_LAST:
                yield encode(self.generation.last_chunk())
            yield DONE
        except Exception as error:  # noqa: BLE001 the status is sent: the client reads it from the stream
            yield encode(self.explain(error).body(), event="error")

    def _event(self, delta: Delta) -> bytes:
        chunk = self.generation.chunk(delta)
        if self.usage is not UsageWanted.WITH_THE_LAST:
            chunk["usage"] = (
                self.generation.usage(self.reader.seen) if self.usage is UsageWanted.ALWAYS else None
            )
        elif self.reader.at_end:
            chunk |= self.generation.totals()
        # A canvas is not acknowledged: it is not sent again.
        numbered = self.numbered and isinstance(delta, TextDelta)
        event_id = EventId(self.generation.completion_id, tuple(self.reader.seen), self.generation.seed)
        return encode(chunk, event_id=str(event_id) if numbered else None)


def encode(data: Mapping[str, object], event: str | None = None, event_id: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n" if event else ""
    if event_id is not None:
        head += f"id: {event_id}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
