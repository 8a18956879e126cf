"""The life of one request on a replica: waiting, prefilling, denoising, block finished."""

from dataclasses import dataclass, field
from enum import Enum

from easel.scheduler.errors import InvalidParameter, RequestTooLong
from easel.scheduler.messages import CanvasSpec, ReplicaShape, Row
from easel.scheduler.phase import RowKind
from easel.scheduler.prefix_cache import page_chain
from easel.scheduler.request import Request


class Stage(Enum):
    """Where a request stands between two steps."""

    WAITING = "waiting"  # no slot yet
    PREFILLING = "prefilling"  # has a slot and its pages are promised; no canvas yet
    DENOISING = "denoising"  # its canvas takes part in every step
    BLOCK_FINISHED = "block_finished"  # next: commit this block and open the next canvas


@dataclass(slots=True)
class RequestState:
    """All a replica knows of one request. `tokens` grows by each finished block."""

    request: Request
    block_length: int
    submitted_at: float
    order: int  # of arrival
    chain: list[bytes]  # names of the full pages of `tokens`
    tokens: list[int]
    canvas_start: int  # absolute position of the current or next canvas
    pages_needed: int  # for everything that is ever written for this request
    stage: Stage = Stage.WAITING
    due: float = 0.0  # latest time to start for its target to be met
    passed_over: int = 0  # plans in which it was considered and got nothing
    slot: int | None = None
    pages: list[int] = field(default_factory=list[int])
    page_table: tuple[int, ...] = ()  # of `pages`, rebuilt when they change
    promised: int = 0  # pages reserved and not yet allocated
    written: int = 0  # leading positions whose keys and values are in pages
    named: int = 0  # leading pages offered to the prefix cache
    cached_tokens: int = 0
    entropy_sum: float = 0.0  # of the current canvas's steps
    admitted_at: float = 0.0
    prefilled_at: float = 0.0
    opened_at: float = 0.0

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def prefill_left(self) -> int:
        """Tokens to write before the first canvas can open; 0 once it has."""
        return max(0, self.canvas_start - self.written) if self.stage is not Stage.BLOCK_FINISHED else 0

    @property
    def known(self) -> int:
        """Leading positions of the canvas that belong to the prompt."""
        return max(0, len(self.request.prompt) - self.canvas_start)

    @property
    def limit(self) -> int:
        """Canvas positions that lie within max_tokens."""
        return min(self.block_length, self.request.total_tokens - self.canvas_start)

    @property
    def block_index(self) -> int:
        """Ordinal among the request's output blocks, the same after a resumption."""
        return (self.canvas_start - len(self.request.prompt) // self.block_length * self.block_length) // (
            self.block_length
        )

    def prefill_row(self, length: int) -> Row:
        """The next `length` positions of the prefix; their pages must be in the page table."""
        end = self.written + length
        return self._row(RowKind.PREFILL, self.written, length, tuple(self.tokens[self.written : end]))

    def commit_row(self) -> Row:
        start = self.canvas_start - self.block_length
        return self._row(RowKind.COMMIT, start, self.block_length, tuple(self.tokens[start:]))

    def open_row(self) -> Row:
        start = self.canvas_start
        canvas = CanvasSpec(
            block_index=self.block_index,
            known=self.request.prompt[start:] if self.known else (),
            limit=self.limit,
            sampling=self.request.sampling,
            diffusion=self.request.diffusion,
            snapshots=self.request.snapshots,
        )
        return self._row(RowKind.OPEN, start, self.block_length, canvas=canvas)

    def reuse_row(self) -> Row:
        return self._row(RowKind.REUSE, self.canvas_start, self.block_length)

    def finish_block(self, block: tuple[int, ...]) -> None:
        """Takes over a block that another follows: it is to be committed, the next one opened."""
        self.tokens.extend(block[self.known : self.block_length])
        self.canvas_start += self.block_length
        self.entropy_sum = 0.0
        self.stage = Stage.BLOCK_FINISHED

    def _row(
        self,
        kind: RowKind,
        start: int,
        length: int,
        tokens: tuple[int, ...] = (),
        canvas: CanvasSpec | None = None,
    ) -> Row:
        slot = -1 if self.slot is None else self.slot
        return Row(kind, self.request_id, slot, start, length, self.page_table, tokens, canvas)


def begin(request: Request, shape: ReplicaShape, now: float, order: int) -> RequestState:
    """The state of a request that was just submitted.

    Raises RequestTooLong when it could never fit in this replica, and InvalidParameter when
    `committed` cannot be resumed from.
    """
    block = shape.block_length
    prompt, total = len(request.prompt), request.total_tokens
    prefix = list(request.prefix)
    if request.committed and len(prefix) % block:
        raise InvalidParameter("committed", len(request.committed), "such that prompt + committed are blocks")
    if len(request.committed) >= request.sampling.max_tokens:
        raise InvalidParameter("committed", len(request.committed), "shorter than max_tokens")
    # The last block is never committed, so it needs no page.
    last_canvas = (total - 1) // block * block
    pages_needed = -(-last_canvas // shape.page_size)
    limit = min(shape.max_model_tokens, shape.pages * shape.page_size + block)
    if total > limit:
        raise RequestTooLong(total, limit, prompt)
    return RequestState(
        request=request,
        block_length=block,
        submitted_at=now,
        order=order,
        chain=page_chain(prefix, shape.page_size, request.tenant),
        tokens=prefix,
        canvas_start=len(prefix) // block * block,
        pages_needed=pages_needed,
    )
