"""Frozen messages: what crosses from plan to run to apply, and from process to process.

All times are seconds of the sender's monotonic clock unless a field says otherwise.
"""

from dataclasses import dataclass
from enum import StrEnum

from easel.scheduler.phase import Phase, RowKind, SequenceLayout
from easel.scheduler.request import DiffusionParams, FinishReason, Request, SamplingParams


class RefreshOrder(StrEnum):
    """In which order waiting refresh work is considered."""

    SLACK = "slack"  # least time to spare first
    ARRIVAL = "arrival"


@dataclass(frozen=True, slots=True)
class CanvasSpec:
    """All a runner needs to open a canvas in a slot; nothing of the slot's past survives it."""

    block_index: int  # 0-based among the request's output blocks; keys the noise
    known: tuple[int, ...]  # the prompt's incomplete last block; decided from the start
    limit: int  # canvas positions that matter, `known` included; the rest lies beyond max_tokens
    sampling: SamplingParams
    diffusion: DiffusionParams
    snapshots: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a forward: `length` positions of a request, from absolute position `start`.

    PREFILL and COMMIT rows carry the `tokens` they write, OPEN rows the `canvas` to open. Other
    canvas rows carry neither: the registers hold the canvas. In a bidirectional sequence of
    `span` tokens OPEN and REBUILD rows hold all of it, and `tokens` are those before the canvas
    (of a REUSE row at least the last one).
    """

    kind: RowKind
    request_id: str
    slot: int
    start: int  # absolute position of the first query
    length: int  # queries; in a partial step those that can still change, wherever they are
    pages: tuple[int, ...]  # page table; covers [0, end) for write rows, [0, start) for canvas rows
    tokens: tuple[int, ...] = ()
    canvas: CanvasSpec | None = None
    canvas_start: int = 0  # absolute position of a canvas row's canvas
    span: int = 0  # of a bidirectional sequence; 0: nothing after the row is seen
    window_pages: tuple[int, ...] = ()  # page table of sliding-window layers, from page window_first on
    window_first: int = 0
    keeps: bool = False  # the canvas's keys and values are kept for partial steps

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def partial(self) -> bool:
        """Whether the step reads the keys and values of positions it does not compute."""
        return self.keeps and self.kind is RowKind.REUSE

    @property
    def pairs(self) -> int:
        """Query-key pairs, counting every query as seeing all keys up to the row's end."""
        return self.length * (self.span or self.end)


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """One forward's worth of work. Write rows come before canvas rows."""

    rows: tuple[Row, ...]
    predicted_seconds: float = 0.0  # of one forward
    steps: int = 1  # the same forward may be repeated that often, until a canvas of it is finished

    @property
    def tokens(self) -> int:
        return sum(row.length for row in self.rows)

    def tokens_of(self, phase: Phase) -> int:
        return sum(row.length for row in self.rows if row.kind.phase is phase)


@dataclass(frozen=True, slots=True)
class CanvasResult:
    """What one canvas row came to. `tokens` is the block, prompt part included, once `done`."""

    request_id: str
    slot: int
    done: bool
    step: int  # denoising steps taken on this block so far
    undecided: int  # positions still open
    mean_entropy: float  # nats, of the last step, over the positions that were undecided before it
    tokens: tuple[int, ...] = ()
    live: int = 0  # positions a partial step would compute next: undecided, or decided just now
    entropy_sum: float = 0.0  # nats, of the mean entropies of all steps of this block


@dataclass(frozen=True, slots=True)
class CanvasSnapshot:
    """The canvas after one step, for clients that draw it. Lists are as long as the block."""

    request_id: str
    block_index: int
    step: int
    tokens: tuple[int, ...]
    decided: tuple[bool, ...]
    confidence: tuple[float, ...]  # probability of the token shown; 1 for the prompt's part
    first: int  # positions before this one belong to the prompt


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a plan came to, in the order of its canvas rows."""

    canvases: tuple[CanvasResult, ...]
    seconds: float  # of all forwards
    snapshots: tuple[CanvasSnapshot, ...] = ()
    steps: int = 1  # forwards that took place


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """A finished block, or the end of a request. Emitted once per block, in order."""

    request_id: str
    block_index: int  # 0-based among the request's output blocks; stable when resumed
    tokens: tuple[int, ...]  # new output tokens; nothing of the prompt, nothing from end-of-sequence on
    steps: int
    mean_entropy: float
    seconds: float  # from the canvas's opening to its last step
    finish: FinishReason | None = None
    cached_tokens: int = 0  # prefix tokens found in the cache at admission
    queue_seconds: float = 0.0  # from submission to a slot
    prefill_seconds: float = 0.0  # from the slot to the first canvas
    tightened: bool = False  # the policy made it settle sooner than its request asked for
    preemptions: int = 0  # times the request has lost its slot here


@dataclass(frozen=True, slots=True)
class StepSample:
    """What one plan came to; where its forward was repeated, the seconds are a forward's mean."""

    step: int  # forwards of this replica up to and with its last one
    refresh_tokens: int  # of one forward
    reuse_tokens: int
    predicted_seconds: float  # of one forward
    actual_seconds: float


@dataclass(frozen=True, slots=True)
class CostCoefficients:
    """seconds = constant + per_token·tokens + per_pair·Σ(queries × keys) + per_head_row·head rows."""

    constant: float
    per_token: float
    per_pair: float
    per_head_row: float


@dataclass(frozen=True, slots=True)
class Tightening:
    """How much sooner canvases that open now settle than their requests ask for. None: as they ask."""

    most_steps: int | None = None  # of a block
    threshold: float | None = (
        None  # CONFIDENCE_THRESHOLD: higher ones are lowered to it, so a step decides more
    )
    entropy_bound: float | None = None  # ENTROPY_BOUND: lower ones are raised to it, nats


@dataclass(frozen=True, slots=True)
class PhasePolicy:
    """What the central scheduler tells a replica. Stale after `time_to_live` seconds."""

    epoch: int = 0
    time_to_live: float = 5.0
    target_seconds: float = 0.050  # predicted cost a step should stay near
    refresh_tokens: int = 512  # most refresh tokens in one step
    opens_per_step: int = 8  # newcomers' canvases opened in one step, at most
    order: RefreshOrder = RefreshOrder.SLACK
    fuse_commits: bool = True  # a block's commit and the next one's opening share a forward
    quantum: int = 8  # most steps in a row without planning anew, while nothing else is to be done
    tightening: Tightening | None = None  # the load valve; None: closed
    preempt: bool = True  # a request of a sooner class may take a later one's slot


STEP_BOUNDS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class HistogramCounts:
    """Steps by how long they took, since the replica's start."""

    counts: tuple[int, ...] = ()  # one for each range that ends at a STEP_BOUNDS, and one beyond; (): none
    sum_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaDigest:
    """A replica's state as the central scheduler sees it, sent 10–20 times a second."""

    replica_id: str
    sequence: int  # grows by one with each digest of this replica's process
    slots: int
    slots_used: int
    pages: int
    pages_available: int  # free or evictable, less what running requests have reserved
    page_size: int
    block_length: int
    waiting: int  # submitted, no slot yet
    waiting_prefill_tokens: int  # still to prefill, of waiting and prefilling requests
    active: tuple[str, ...]  # request ids that are waiting or running here
    steps_per_block: float  # running mean
    step_seconds: float  # running mean
    cost: CostCoefficients
    refresh_tokens: int  # done since start
    reuse_tokens: int
    steps: int
    blocks: int
    committed_tokens: int
    policy_epoch: int
    layout: SequenceLayout = SequenceLayout.BLOCK_CAUSAL
    cost_error: float = 0.0  # running mean of |predicted - actual| / actual seconds of a step
    output_share: float = 1.0  # running mean of output tokens / max_tokens, of requests that ended
    blocks_left: float = 0.0  # predicted, of all that wait or run here, beside the canvases that are open
    steps_left: float = 0.0  # predicted, of the canvases that are open
    least_slack: float | None = None  # seconds; of whoever waits or runs here; negative: a target is missed
    preemptions: int = 0  # since start
    draining: bool = False  # takes no more requests
    recent: tuple[StepSample, ...] = ()  # some of the steps since the last digest, oldest first
    step_times: HistogramCounts = HistogramCounts()
    predicted_times: HistogramCounts = HistogramCounts()  # of the same steps, as the cost model foresaw them
    journal_buffered: int = 0  # records that are not in the journal yet
    journal_lag_seconds: float = 0.0  # age of the oldest of them


@dataclass(frozen=True, slots=True)
class ReplicaOrders:
    """The answer to a digest."""

    policy: PhasePolicy | None = None
    hand_over: tuple[str, ...] = ()  # requests to give back, the running ones at the end of their block
    drain: bool = False  # give all back in this way, and take no more


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request runs, and the fencing epoch under which its owner may write."""

    request_id: str
    replica_id: str
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class ReplicaShape:
    """The fixed limits of one replica, known once its model is loaded."""

    slots: int
    pages: int
    page_size: int  # tokens; a multiple of block_length in a block-causal layout
    block_length: int
    max_model_tokens: int  # prompt + output of one request
    eos_token_ids: frozenset[int]
    layout: SequenceLayout = SequenceLayout.BLOCK_CAUSAL
    window: int = 0  # tokens that sliding-window layers see, the query included; 0: no such layers
    window_pages: int = 0  # pages of those layers
    partial: bool = False  # canvases' keys and values can be kept, for steps that compute a part
    refresh_limit: int = 1 << 30  # refresh tokens of one step that memory is set aside for
    commit_limit: int = 1 << 30  # finished blocks of one step whose commits memory is set aside for

    @property
    def granularity(self) -> int:
        """Tokens a prefill chunk is a multiple of, unless it is the last one."""
        return self.block_length if self.layout is SequenceLayout.BLOCK_CAUSAL else 1


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """What a gateway hands to a worker replica: the request and the lease it runs under.

    `history` are the blocks that `request.committed` is made of, should the journal forget them.
    """

    request: Request
    lease_epoch: int
    history: tuple[BlockEvent, ...] = ()
    traceparent: str = ""  # W3C trace context of the gateway's attempt; "": the request is not traced
