"""The life of one request on a replica: waiting, prefilling, denoising, block finished."""

from dataclasses import dataclass, field
from enum import Enum

from easel.scheduler.errors import InvalidParameter, RequestTooLong
from easel.scheduler.messages import CanvasSpec, ReplicaShape, Row
from easel.scheduler.page_needs import pages_needed, span_of
from easel.scheduler.phase import RowKind, SequenceLayout
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
    layout: SequenceLayout
    block_length: int
    origin: int  # absolute position of the first output block
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
    window_pages: list[int] = field(default_factory=list[int])  # of sliding-window layers
    window_table: tuple[int, ...] = ()  # of `window_pages`
    window_first: int = 0  # page of the sequence that the first of them holds
    step: int = 0  # denoising steps taken on the current canvas
    live: int = 0  # canvas positions that a partial step would compute
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
        if self.stage is Stage.BLOCK_FINISHED or not self.layout.shares_prefix:
            return 0
        return max(0, self.canvas_start - self.written)

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
        return (self.canvas_start - self.origin) // self.block_length

    @property
    def span(self) -> int:
        """Tokens of the whole sequence, those to come included, where all see all; else 0."""
        if self.layout.shares_prefix:
            return 0
        return span_of(len(self.request.prompt), self.request.sampling.max_tokens, self.block_length)

    @property
    def to_commit(self) -> int:
        """Tokens of finished blocks that are not in pages yet."""
        return max(0, self.canvas_start - self.written) if self.layout.shares_prefix else 0

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
        return self._whole_row(RowKind.OPEN, canvas)

    def step_row(self) -> Row:
        """The next step of an open canvas."""
        period = self.request.diffusion.rebuild_every
        if (period and self.step % period == 0) or (not period and not self.layout.shares_prefix):
            return self._whole_row(RowKind.REBUILD)
        length = self.live if period and self.layout.shares_prefix else self.block_length
        before = () if self.layout.shares_prefix else tuple(self.tokens[-1:])
        return self._row(RowKind.REUSE, self.canvas_start, length, before)

    @property
    def steps_vary(self) -> bool:
        """Whether the row of a step depends on the steps before it."""
        return self.request.diffusion.rebuild_every > 0 or not self.layout.shares_prefix

    @property
    def looked_at(self) -> bool:
        """Whether the host has to see every step of the canvas."""
        return self.steps_vary or self.request.snapshots

    def finish_block(self, block: tuple[int, ...]) -> None:
        """Takes over a block that another follows: it is to be committed, the next one opened."""
        self.tokens.extend(block[self.known : self.block_length])
        self.canvas_start += self.block_length
        self.entropy_sum = 0.0
        self.step = 0
        self.stage = Stage.BLOCK_FINISHED

    def _whole_row(self, kind: RowKind, canvas: CanvasSpec | None = None) -> Row:
        """A step that computes all of the canvas, and where all see all the whole sequence."""
        if self.layout.shares_prefix:
            return self._row(kind, self.canvas_start, self.block_length, canvas=canvas)
        return self._row(kind, 0, self.span, tuple(self.tokens[: self.canvas_start]), canvas)

    def _row(
        self,
        kind: RowKind,
        start: int,
        length: int,
        tokens: tuple[int, ...] = (),
        canvas: CanvasSpec | None = None,
    ) -> Row:
        return Row(
            kind=kind,
            request_id=self.request_id,
            slot=-1 if self.slot is None else self.slot,
            start=start,
            length=length,
            pages=self.page_table,
            tokens=tokens,
            canvas=canvas,
            canvas_start=self.canvas_start,
            span=self.span,
            window_pages=self.window_table,
            window_first=self.window_first,
            keeps=self.request.diffusion.rebuild_every > 0 and kind.needs_head,
        )


def begin(request: Request, shape: ReplicaShape, now: float, order: int) -> RequestState:
    """The state of a request that was just submitted.

    Raises RequestTooLong when it could never fit in this replica, and InvalidParameter when
    `committed` cannot be resumed from or partial steps are not provided for.
    """
    block, prefix = shape.block_length, list(request.prefix)
    aligned = shape.layout is SequenceLayout.BLOCK_CAUSAL
    origin = len(request.prompt) // block * block if aligned else len(request.prompt)
    canvas_start = origin + (len(prefix) - origin) // block * block
    if request.committed and len(prefix) != canvas_start:
        raise InvalidParameter("committed", len(request.committed), "such that it ends with a block")
    if len(request.committed) >= request.sampling.max_tokens:
        raise InvalidParameter("committed", len(request.committed), "shorter than max_tokens")
    if request.diffusion.rebuild_every and not shape.partial:
        expected = "0: this model is not set up for partial steps (engine.partial)"
        raise InvalidParameter("rebuild_every", request.diffusion.rebuild_every, expected)
    state = RequestState(
        request=request,
        layout=shape.layout,
        block_length=block,
        origin=origin,
        submitted_at=now,
        order=order,
        chain=page_chain(prefix, shape.page_size, request.tenant) if shape.layout.shares_prefix else [],
        tokens=prefix,
        canvas_start=canvas_start,
        pages_needed=pages_needed(
            shape.layout, len(request.prompt), request.sampling.max_tokens, block, shape.page_size
        ),
    )
    _refuse_too_long(state, shape)
    return state


def _refuse_too_long(state: RequestState, shape: ReplicaShape) -> None:
    total, block = state.request.total_tokens, shape.block_length
    if state.pages_needed > shape.pages or total > shape.max_model_tokens:
        room = shape.pages * shape.page_size
        limit = min(shape.max_model_tokens, room + block if shape.layout.shares_prefix else room)
        raise RequestTooLong(total, limit, len(state.request.prompt))
