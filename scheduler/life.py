"""The life of one request on a replica: waiting, prefilling, denoising, block finished."""

from dataclasses import dataclass, field
from enum import Enum
from math import inf

from easel.scheduler.cost import Workload
from easel.scheduler.errors import InvalidParameter, RequestTooLong
from easel.scheduler.messages import CanvasResult, ReplicaShape, Row, Tightening
from easel.scheduler.page_needs import pages_needed, span_of
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.prefix_cache import page_chain
from easel.scheduler.request import DiffusionParams, Request


class Stage(Enum):
    """Where a request stands between two steps."""

    WAITING = "waiting"  # no slot
    PREFILLING = "prefilling"  # has a slot and its pages are promised; no canvas yet
    DENOISING = "denoising"  # its canvas takes part in every step
    BLOCK_FINISHED = "block_finished"  # next: commit this block and open the next canvas


class AfterBlock(Enum):
    """What a request does once its open canvas is finished and another would follow."""

    GO_ON = "go_on"
    YIELD = "yield"  # gives its slot to one that is more urgent, and waits again
    HAND_OVER = "hand_over"  # leaves this replica


@dataclass(frozen=True, slots=True)
class Continuation:
    """The rows with which a request goes on after a finished block."""

    commit: Row | None  # of the finished block; None: nothing is left to be written
    opening: Row  # of the next canvas
    load: Workload  # of both
    valve: Tightening | None  # under which the canvas opens


@dataclass(slots=True)
class RequestState:
    """All a replica knows of one request. `tokens` grows by each finished block."""

    request: Request
    block_length: int
    shares_prefix: bool  # its keys and values are exact once written, and other requests' too
    span: int  # tokens of the whole sequence, those to come included, where all see all; else 0
    total_tokens: int  # the longest the sequence can become
    steps_vary: bool  # the row of a step depends on the steps before it
    looked_at: bool  # the host has to see every step of the canvas
    origin: int  # absolute position of the first output block
    submitted_at: float
    waits_since: float  # submission, or the last time it lost its slot
    order: int  # of arrival
    chain: list[bytes]  # names of the full pages of `tokens`
    tokens: list[int]
    canvas_start: int  # absolute position of the current or next canvas
    pages_needed: int  # for everything that is ever written for this request
    stage: Stage = Stage.WAITING
    after: AfterBlock = AfterBlock.GO_ON
    due: float = 0.0  # latest time to start for its target to be met
    passed_over: int = 0  # plans in which it was considered and got nothing
    preemptions: int = 0
    slot: int | None = None
    pages: list[int] = field(default_factory=list[int])
    page_table: tuple[int, ...] = ()  # of `pages`, rebuilt when they change
    promised: int = 0  # pages reserved and not yet allocated
    written: int = 0  # leading positions whose keys and values are in pages
    named: int = 0  # leading pages offered to the prefix cache
    window_pages: list[int] = field(default_factory=list[int])  # of sliding-window layers
    window_table: tuple[int, ...] = ()  # of `window_pages`
    window_first: int = 0  # page of the sequence that the first of them holds
    path: list[CanvasResult] = field(default_factory=list[CanvasResult])  # of the open canvas's steps
    continuation: Continuation | None = None  # while the block is finished, once it has been made up
    valve: Tightening | None = None  # the last one asked about, and what canvases settle by under it
    settles_by: DiffusionParams | None = None
    tightened: bool = False  # the open canvas settles sooner than asked for
    cached_tokens: int = 0
    admitted_at: float = 0.0
    prefilled_at: float = 0.0
    opened_at: float = 0.0

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def step(self) -> int:
        """Denoising steps taken on the open canvas."""
        return self.path[-1].step if self.path else 0

    @property
    def deadline(self) -> float:
        """When the whole answer should be there; infinite if the request does not say."""
        seconds = self.request.deadline_seconds
        return inf if seconds is None else self.submitted_at + seconds

    @property
    def to_commit(self) -> int:
        """Leading positions of finished blocks and prompt that are not in pages yet."""
        return max(0, self.canvas_start - self.written) if self.shares_prefix else 0

    @property
    def prefill_left(self) -> int:
        """Tokens to write before the first canvas can open; 0 once it has."""
        return 0 if self.stage is Stage.BLOCK_FINISHED else self.to_commit

    @property
    def known(self) -> int:
        """Leading positions of the canvas that belong to the prompt."""
        return max(0, len(self.request.prompt) - self.canvas_start)

    @property
    def limit(self) -> int:
        """Canvas positions that lie within max_tokens."""
        return min(self.block_length, self.total_tokens - self.canvas_start)

    @property
    def block_index(self) -> int:
        """Ordinal among the request's output blocks, the same after a resumption."""
        return (self.canvas_start - self.origin) // self.block_length

    @property
    def output_tokens(self) -> int:
        """Of finished blocks, those included that were committed before the request came here."""
        return max(0, self.canvas_start - len(self.request.prompt))

    @property
    def blocks_left(self) -> int:
        """Blocks still to be finished if the output comes to max_tokens."""
        return -(-(self.total_tokens - self.canvas_start) // self.block_length)

    def finish_block(self, block: tuple[int, ...]) -> None:
        """Takes over a block that another follows: it is to be committed, the next one opened."""
        self.tokens.extend(block[self.known : self.block_length])
        self.canvas_start += self.block_length
        self.path = []
        self.continuation = None
        self.stage = Stage.BLOCK_FINISHED

    def lose_slot(self, now: float) -> None:
        """Waits again, with its finished blocks and without what an open canvas had come to."""
        self.stage = Stage.WAITING
        self.after = AfterBlock.GO_ON
        self.path = []
        self.continuation = None
        self.written = self.named = self.passed_over = 0
        self.preemptions += 1
        self.waits_since = now


def begin(request: Request, shape: ReplicaShape, now: float, order: int) -> RequestState:
    """The state of a request that was just submitted.

    Raises RequestTooLong when it could never fit in this replica, and InvalidParameter when
    `committed` cannot be resumed from or partial steps are not provided for.
    """
    block, layout, prefix = shape.block_length, shape.layout, list(request.prefix)
    prompt, output, shares = len(request.prompt), request.sampling.max_tokens, layout.shares_prefix
    origin = prompt // block * block if layout is SequenceLayout.BLOCK_CAUSAL else prompt
    canvas_start = origin + (len(prefix) - origin) // block * block
    _refuse_unfit(request, shape, canvas_start)
    partial = request.diffusion.rebuild_every > 0
    state = RequestState(
        request=request,
        block_length=block,
        shares_prefix=shares,
        span=0 if shares else span_of(prompt, output, block),
        total_tokens=prompt + output,
        steps_vary=partial or not shares,
        looked_at=partial or not shares or request.snapshots,
        origin=origin,
        submitted_at=now,
        waits_since=now,
        order=order,
        chain=page_chain(prefix, shape.page_size, request.tenant) if shares else [],
        tokens=prefix,
        canvas_start=canvas_start,
        pages_needed=pages_needed(layout, prompt, output, block, shape.page_size),
    )
    _refuse_too_long(state, shape)
    return state


def _refuse_unfit(request: Request, shape: ReplicaShape, canvas_start: int) -> None:
    if request.committed and len(request.prefix) != canvas_start:
        raise InvalidParameter("committed", len(request.committed), "such that it ends with a block")
    if len(request.committed) >= request.sampling.max_tokens:
        raise InvalidParameter("committed", len(request.committed), "shorter than max_tokens")
    if request.diffusion.rebuild_every and not shape.partial:
        expected = "0: this model is not set up for partial steps (engine.partial)"
        raise InvalidParameter("rebuild_every", request.diffusion.rebuild_every, expected)


def _refuse_too_long(state: RequestState, shape: ReplicaShape) -> None:
    total, block = state.total_tokens, shape.block_length
    if state.pages_needed > shape.pages or total > shape.max_model_tokens:
        room = shape.pages * shape.page_size
        limit = min(shape.max_model_tokens, room + block if shape.layout.shares_prefix else room)
        raise RequestTooLong(total, limit, len(state.request.prompt))
