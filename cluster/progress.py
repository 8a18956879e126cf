"""How far a client's stream has come, whoever produces its blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from easel.cluster.errors import ReplicaLost
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import Request


@dataclass(slots=True)
class Progress:
    """The request as it would be resumed now, and the block that must come next."""

    request: Request  # `committed` grows by each block taken
    next_block: int = 0
    finished: bool = False
    blocks: list[BlockEvent] = field(default_factory=list[BlockEvent])  # taken so far

    @staticmethod
    def of(request: Request, done: Sequence[BlockEvent] = ()) -> "Progress":
        """Where a request stands whose `committed` is made of the blocks `done`."""
        return Progress(request, len(done), blocks=list(done))

    def take(self, event: BlockEvent | CanvasSnapshot) -> bool:
        """Whether the event is new to the client; blocks seen before are dropped.

        Raises ReplicaLost when a block is missing in between: whoever sent it cannot be trusted.
        """
        if isinstance(event, CanvasSnapshot):
            return event.block_index >= self.next_block
        if event.finish is None and event.block_index < self.next_block:
            return False
        if event.block_index > self.next_block:
            raise ReplicaLost(
                "that sent it", f"block {event.block_index} came where {self.next_block} was due"
            )
        self.finished = event.finish is not None
        self.blocks.append(event)
        self.next_block = event.block_index + 1
        self.request = replace(self.request, committed=self.request.committed + event.tokens)
        return True
