"""What happened to requests, as lines of JSON: recorded from a cluster, or written by the simulator.

The first line describes the cluster (`TraceHeader`), every other one a request (`RequestTrace`).
Times are seconds since the trace began. Unknown fields are ignored, so that a trace can grow.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, cast

from easel.scheduler.errors import SchedulerError
from easel.scheduler.messages import CostCoefficients, ReplicaShape
from easel.scheduler.phase import SequenceLayout

FORMAT = "easel-trace-1"


class BrokenTrace(SchedulerError):
    """A trace cannot be read."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(
            f"line {line} of the trace: {problem}; record it anew with `easel bench URL --record FILE`."
        )
        self.line = line
        self.problem = problem

    def __reduce__(self) -> tuple[type["BrokenTrace"], tuple[int, str]]:
        return type(self), (self.line, self.problem)


@dataclass(frozen=True, slots=True)
class BlockTrace:
    """One block of a request, as its client saw it."""

    at: float  # when it arrived
    steps: int
    tokens: int  # output tokens
    seconds: float  # from the canvas's opening to its last step, by the replica's clock


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request. `client` sent its requests one after another; an open loop's have none (-1)."""

    request_id: str
    arrival: float
    prompt_tokens: int
    max_tokens: int
    blocks: tuple[BlockTrace, ...]
    queue_seconds: float = 0.0  # at the replica, before it had a slot
    prefill_seconds: float = 0.0
    cached_tokens: int = 0
    client: int = -1
    tenant: str = ""
    priority: int = 0
    correct: bool | None = None  # whether the answer was right, where somebody knows

    @property
    def finish(self) -> float:
        """When the last block arrived."""
        return self.blocks[-1].at

    @property
    def seconds(self) -> float:
        return self.finish - self.arrival

    @property
    def first_block_seconds(self) -> float:
        """From the arrival to the first block."""
        return self.blocks[0].at - self.arrival

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds between one block and the next."""
        times = [block.at for block in self.blocks]
        return tuple(later - sooner for sooner, later in pairwise(times))

    @property
    def tokens(self) -> int:
        return sum(block.tokens for block in self.blocks)

    @property
    def overhead_seconds(self) -> float:
        """What the replica does not account for: HTTP, placement, streams, waiting between steps."""
        return (
            self.seconds
            - self.queue_seconds
            - self.prefill_seconds
            - sum(block.seconds for block in self.blocks)
        )


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """The cluster that a trace was recorded on."""

    replicas: int
    slots: int  # of each replica, as all that follows
    pages: int
    page_size: int
    block_length: int
    layout: SequenceLayout = SequenceLayout.BLOCK_CAUSAL
    cost: CostCoefficients | None = None  # mean of the replicas' fitted ones
    cost_error: float = 0.0
    model: str = ""
    setup: str = ""  # of the machine, for whoever reads it

    @property
    def shape(self) -> ReplicaShape:
        """A replica of the kind; its end-of-sequence is token 1 and nothing is too long for it."""
        return ReplicaShape(
            slots=self.slots,
            pages=self.pages,
            page_size=self.page_size,
            block_length=self.block_length,
            max_model_tokens=self.pages * self.page_size,
            eos_token_ids=frozenset({1}),
            layout=self.layout,
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """A cluster and what it was asked, in the order of arrival."""

    header: TraceHeader
    requests: tuple[RequestTrace, ...]


def write_trace(trace: Trace) -> str:
    """The lines of a trace file."""
    header = {"format": FORMAT, **asdict(trace.header)}
    return "".join(f"{json.dumps(line)}\n" for line in [header, *map(asdict, trace.requests)])


def read_trace(lines: Iterable[str]) -> Trace:
    """Raises BrokenTrace, with the line, where something is missing or not of its kind."""
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise BrokenTrace(1, "it is empty")
    header = _header(*numbered[0])
    requests = sorted((_request(*pair) for pair in numbered[1:]), key=lambda request: request.arrival)
    if not requests:
        raise BrokenTrace(2, "it holds no request")
    return Trace(header, tuple(requests))


def _header(number: int, line: str) -> TraceHeader:
    fields = _fields(number, line)
    if fields.get("format") != FORMAT:
        raise BrokenTrace(number, f"the format is {fields.get('format')!r}, not {FORMAT!r}")
    try:
        cost = fields.get("cost")
        values: dict[str, Any] = {
            **_known(TraceHeader, fields),
            "layout": SequenceLayout(fields["layout"]),
            "cost": None if cost is None else CostCoefficients(**cost),
        }
        return TraceHeader(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenTrace(number, f"{type(error).__name__}: {error}") from error


def _request(number: int, line: str) -> RequestTrace:
    fields = _fields(number, line)
    try:
        blocks = tuple(BlockTrace(**_known(BlockTrace, block)) for block in fields["blocks"])
        values: dict[str, Any] = {**_known(RequestTrace, fields), "blocks": blocks}
        request = RequestTrace(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenTrace(number, f"{type(error).__name__}: {error}") from error
    if not request.blocks or min(block.steps for block in request.blocks) < 1:
        raise BrokenTrace(number, f"request {request.request_id!r} has no block, or one of no steps")
    return request


def _fields(number: int, line: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise BrokenTrace(number, f"it is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise BrokenTrace(number, "it is not a JSON object")
    return cast(dict[str, Any], fields)


def _known(kind: type[TraceHeader | RequestTrace | BlockTrace], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in kind.__slots__}
