"""Requests for a simulation: what each will turn out to need, and when it arrives."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Protocol

from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.scheduler.trace import RequestTrace

FILLER = 10  # token that stands for any


@dataclass(frozen=True, slots=True)
class BlockWork:
    """What one block will turn out to need."""

    steps: int
    tokens: int  # of output; fewer than fit in the block only in a request's last one


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """A request together with its future, which the scheduler does not know."""

    arrival: float  # seconds since the simulation began
    request: Request
    blocks: tuple[BlockWork, ...]
    client: int = -1


class Load(Protocol):
    """Where requests come from."""

    def first(self) -> SimulatedRequest | None:
        """The first to arrive, of those that wait for nobody; None when there is none."""
        ...

    def following(self, arrived: SimulatedRequest) -> SimulatedRequest | None:
        """Whoever arrives next whatever happens to `arrived`."""
        ...

    def after(self, client: int, now: float) -> SimulatedRequest | None:
        """The client's next request, now that its last one has ended."""
        ...


class OpenLoop:
    """Requests that arrive at their own times."""

    def __init__(self, requests: Iterator[SimulatedRequest]) -> None:
        self._requests = requests

    def first(self) -> SimulatedRequest | None:
        return next(self._requests, None)

    def following(self, arrived: SimulatedRequest) -> SimulatedRequest | None:
        return next(self._requests, None)

    def after(self, client: int, now: float) -> SimulatedRequest | None:
        return None


Maker = Callable[[int, float], "SimulatedRequest | None"]  # client, arrival -> its next request


class ClosedLoop:
    """Clients that each have one request under way and send the next when it has ended.

    `make` returns a client's next request, arriving at the time given or later; None: it is done.
    """

    def __init__(self, make: Maker, clients: int, spread_seconds: float = 0.0) -> None:
        self._make = make
        self._clients = clients
        self._spread = spread_seconds  # over which the clients begin
        self._begun = 0

    def first(self) -> SimulatedRequest | None:
        while self._begun < self._clients:
            client, self._begun = self._begun, self._begun + 1
            request = self._make(client, self._spread * client / self._clients)
            if request is not None:
                return request
        return None

    def following(self, arrived: SimulatedRequest) -> SimulatedRequest | None:
        # Only the clients' first requests follow one another.
        return self.first()

    def after(self, client: int, now: float) -> SimulatedRequest | None:
        return self._make(client, now)


class Replay:
    """The requests of a trace: an open loop's at their times, a client's at its recorded pauses."""

    def __init__(self, requests: Sequence[RequestTrace]) -> None:
        start = requests[0].arrival
        lines: dict[int, list[RequestTrace]] = {}
        for request in requests:
            if request.client >= 0:
                lines.setdefault(request.client, []).append(request)
        self._pauses: dict[int, list[tuple[float, SimulatedRequest]]] = {}
        heads: list[SimulatedRequest] = []
        for client, line in lines.items():
            works = [as_simulated(request, start) for request in line]
            heads.append(works[0])
            pauses = [later.arrival - sooner.finish for sooner, later in pairwise(line)]
            self._pauses[client] = list(zip(pauses, works[1:], strict=True))[::-1]
        heads += [as_simulated(request, start) for request in requests if request.client < 0]
        self._heads = iter(sorted(heads, key=lambda head: head.arrival))

    def first(self) -> SimulatedRequest | None:
        return next(self._heads, None)

    def following(self, arrived: SimulatedRequest) -> SimulatedRequest | None:
        # Later requests of a client come when the one before has ended.
        return next(self._heads, None)

    def after(self, client: int, now: float) -> SimulatedRequest | None:
        waiting = self._pauses.get(client)
        if not waiting:
            return None
        pause, work = waiting.pop()
        return SimulatedRequest(now + max(0.0, pause), work.request, work.blocks, client)


def as_simulated(trace: RequestTrace, start: float = 0.0) -> SimulatedRequest:
    """A recorded request. Of its prompt only the length is known, so nothing of it will be cached."""
    request = simulated_request(
        trace.request_id, trace.prompt_tokens, trace.max_tokens, tenant=trace.tenant, priority=trace.priority
    )
    blocks = tuple(BlockWork(block.steps, block.tokens) for block in trace.blocks)
    return SimulatedRequest(trace.arrival - start, request, blocks, trace.client)


def simulated_request(
    request_id: str,
    prompt_tokens: int,
    max_tokens: int,
    *,
    shared: Sequence[int] = (),
    tenant: str = "",
    priority: int = 0,
    rebuild_every: int = 0,
    deadline_seconds: float | None = None,
) -> Request:
    """A request whose prompt is `shared`, then tokens of its own; no two requests' are the same."""
    own = prompt_tokens - len(shared)
    # Two tokens tell requests apart; the others are one small number, which takes no memory.
    mark = Random(request_id).getrandbits(62)
    prompt = (*shared, mark >> 31, mark & 0x7FFFFFFF)[:prompt_tokens] + (FILLER,) * (own - 2)
    return Request(
        request_id=request_id,
        prompt=prompt,
        sampling=SamplingParams(max_tokens=max_tokens),
        diffusion=DiffusionParams(rebuild_every=rebuild_every),
        tenant=tenant,
        priority=priority,
        deadline_seconds=deadline_seconds,
    )


def draw_blocks(
    rng: Random, steps: Callable[[Random], int], output_tokens: int, block_length: int, known: int = 0
) -> tuple[BlockWork, ...]:
    """Blocks for `output_tokens`, the first of which holds `known` tokens of the prompt."""
    blocks: list[BlockWork] = []
    left, room = output_tokens, block_length - known
    while left > 0:
        blocks.append(BlockWork(steps(rng), min(left, room)))
        left -= room
        room = block_length
    return tuple(blocks)
