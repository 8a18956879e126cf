"""A request and the parameters that decide how its canvases settle."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from easel.scheduler.errors import InvalidParameter

MAX_SEED = 2**63 - 1
MAX_STEPS = 4096  # of a block; tables of that length are made
MAX_TOP_K = 2**31 - 1


class CommitRule(StrEnum):
    """Which undecided positions a denoising step decides."""

    CONFIDENCE_THRESHOLD = "confidence_threshold"
    STATIC_SCHEDULE = "static_schedule"
    ENTROPY_BOUND = "entropy_bound"
    SEQUENTIAL = "sequential"


class Schedule(StrEnum):
    """How a block's positions are spread over its steps."""

    LINEAR = "linear"
    COSINE = "cosine"


class FinishReason(StrEnum):
    """Why a request ended, or ended at one replica."""

    STOP = "stop"  # end-of-sequence was decided
    LENGTH = "length"  # max_tokens reached
    CANCELLED = "cancelled"
    HANDED_OVER = "handed_over"  # this replica gave it back at a block's end; it goes on at another


class Priority(IntEnum):
    """Classes of requests; the lower, the sooner, and a lower one may take a higher one's slot."""

    INTERACTIVE = -1
    STANDARD = 0
    BATCH = 1


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a token is drawn at one position; temperature 0 is greedy."""

    max_tokens: int = 256  # output tokens, prompt excluded
    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "at least 1")
        _require(0.0 <= self.temperature <= 10.0, "temperature", self.temperature, "between 0 and 10")
        _require(0 <= self.top_k <= MAX_TOP_K, "top_k", self.top_k, f"0 (off) or more, up to {MAX_TOP_K}")
        _require(0.0 < self.top_p <= 1.0, "top_p", self.top_p, "above 0 and at most 1")
        _require(0 <= self.seed <= MAX_SEED, "seed", self.seed, f"between 0 and {MAX_SEED}")


@dataclass(frozen=True, slots=True)
class DiffusionParams:
    """How a canvas is denoised: the quality and latency dial.

    `steps` caps the denoising steps of one block. A step decides at least the schedule's
    share of the block, so a block is always finished within its steps.
    """

    steps: int = 32
    commit_rule: CommitRule = CommitRule.CONFIDENCE_THRESHOLD
    threshold: float = 0.9  # CONFIDENCE_THRESHOLD: decide every position with p above it
    entropy_bound: float = 0.35  # ENTROPY_BOUND: nats, summed over the positions decided in a step
    schedule: Schedule = Schedule.LINEAR
    stop_entropy: float | None = None  # nats; finish the block when the mean of undecided ones is below
    stability: int = 1  # renoising models: steps whose predictions must agree for a block to be finished
    temperature_start: float = 1.0  # renoising models: factor of the temperature, linear over the steps
    temperature_end: float = 1.0
    edit_threshold: float | None = None  # decided tokens change when another one's p is above it
    rebuild_every: int = 0  # steps between full recomputations; 0: every step is one, and exact

    def __post_init__(self) -> None:
        _require(1 <= self.steps <= MAX_STEPS, "steps", self.steps, f"between 1 and {MAX_STEPS}")
        _require(0.0 <= self.threshold <= 1.0, "threshold", self.threshold, "between 0 and 1")
        _require(self.entropy_bound >= 0.0, "entropy_bound", self.entropy_bound, "0 or more nats")
        if self.stop_entropy is not None:
            _require(self.stop_entropy >= 0.0, "stop_entropy", self.stop_entropy, "0 or more nats")
        _require(self.stability >= 0, "stability", self.stability, "0 (not asked for) or more steps")
        for name, value in (("start", self.temperature_start), ("end", self.temperature_end)):
            _require(0.0 < value <= 10.0, f"temperature_{name}", value, "above 0 and at most 10")
        if self.edit_threshold is not None:
            _require(0.0 <= self.edit_threshold <= 1.0, "edit_threshold", self.edit_threshold, "in [0, 1]")
            _require(self.rebuild_every == 0, "rebuild_every", self.rebuild_every, "0 when tokens are edited")
        _require(self.rebuild_every >= 0, "rebuild_every", self.rebuild_every, "0 (exact) or more steps")


@dataclass(frozen=True, slots=True)
class Request:
    """One generation. `committed` holds output tokens of blocks finished before, when it is resumed.

    `prompt + committed` must end on a block boundary unless `committed` is empty: only whole
    blocks are ever resumed.
    """

    request_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    diffusion: DiffusionParams = field(default_factory=DiffusionParams)
    committed: tuple[int, ...] = ()
    tenant: str = ""  # salts the prefix cache; tenants never share pages
    priority: int = Priority.STANDARD  # lower runs sooner
    snapshots: bool = False  # also report the canvas after every step
    deadline_seconds: float | None = (
        None  # from its submission to a replica: the answer should be whole by then
    )

    def __post_init__(self) -> None:
        _require(len(self.prompt) > 0, "prompt", self.prompt, "at least one token")
        if self.deadline_seconds is not None:
            _require(self.deadline_seconds > 0.0, "deadline_seconds", self.deadline_seconds, "above 0")

    @property
    def prefix(self) -> tuple[int, ...]:
        """Prompt and blocks that were committed before this request was (re)submitted."""
        return self.prompt + self.committed

    @property
    def total_tokens(self) -> int:
        """The longest this request can become, in tokens."""
        return len(self.prompt) + self.sampling.max_tokens


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise InvalidParameter(name, value, expected)
