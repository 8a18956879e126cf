"""What the HTTP layer needs from the cluster behind it."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from easel.cluster.journal_records import AnswerRecord, AnswerStatus, StoredAnswer
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import Request


class Backend(Protocol):
    """Runs requests somewhere and survives the loss of where."""

    def stream(
        self, request: Request, done: Sequence[BlockEvent] = ()
    ) -> AsyncIterator[BlockEvent | CanvasSnapshot]:
        """Events of one request, in order, each block once; the last has a `finish`.

        `done` are the blocks that `request.committed` is made of, when it is resumed.
        Closing the iterator cancels the request. Raises QueueFull, RequestTooLong, or
        ClusterError when no replica can run it.
        """
        ...

    async def ready(self) -> bool:
        """Whether at least one replica can take a request."""
        ...

    async def status(self) -> dict[str, object]:
        """Replicas, queue and journal, for /health and operators; JSON values.

        The value of `journal` is "ok", "off", or "degraded" while Redis is away.
        """
        ...


class AnswerStore(Protocol):
    """Where answers are kept, so that any gateway can go on with them.

    Every method raises JournalUnavailable while the journal is away.
    """

    async def claim(self, record: AnswerRecord) -> bool:
        """Make this gateway the answer's driver, and keep the record if it is not there yet.

        False when another gateway drives it, or it has come to its end.
        """
        ...

    async def renew(self, answer_id: str) -> bool:
        """To be called several times in a driver lease's life. False: it is lost, or to be cancelled."""
        ...

    async def release(self, answer_id: str) -> None:
        """This gateway drives it no more, and it is not finished: its client has gone."""
        ...

    async def conclude(self, answer_id: str, status: AnswerStatus, detail: str = "") -> None:
        """The answer has come to its end; it stays readable for a while."""
        ...

    async def read(self, answer_id: str) -> StoredAnswer | None:
        """The answer with its requests' committed blocks; None when it is not known, or forgotten."""
        ...

    async def cancel(self, answer_id: str) -> bool:
        """Mark it cancelled, which its driver learns at its next renewal. False when it has ended already."""
        ...

    async def orphans(self) -> list[str]:
        """Background answers that are unfinished and that nobody drives."""
        ...
