"""The contest of composition policies on the real engine with the embedded model, on this machine's CPU.

Time is the processor's, one thread, and jumps to the next arrival where the engine has nothing to
do: so that whatever else runs on the machine changes no order and hardly any figure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from time import process_time

from easel.bench.report import Figure, figure
from easel.bench.workload import demo_jobs
from easel.scheduler.central import ClusterScheduler
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import BatchPlan, BlockEvent, StepResult
from easel.scheduler.request import Priority, Request
from easel.scheduler.sim_report import Slo, percentile, summarise, variation
from easel.scheduler.trace import BlockTrace, RequestTrace
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.host_loop import Interrupted, never
from easel.worker.loading import load_engine
from easel.worker.runner import Runner

SLOTS = 16
THRESHOLDS = (0.9, 0.999, 1.0)  # drawn per request: from one step a block to one a position
PACE_SECONDS = 0.25  # between policies, as in the cluster
SLO = Slo(first_block=1.0, gap=0.5)
POLICIES = (
    ComposePolicy.LOCKSTEP,
    ComposePolicy.SEGREGATED,
    ComposePolicy.FCFS,
    ComposePolicy.BALANCED,
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request and when it comes; a client's (0 and up) comes when its last one has ended."""

    at: float  # seconds since the round began
    request: Request
    client: int = -1


@dataclass(slots=True)
class TimedRunner(Runner):
    """A runner that remembers what each forward took."""

    seconds: list[float] = field(default_factory=list[float])

    def run(self, plan: BatchPlan, interrupted: Interrupted = never) -> StepResult:
        result = Runner.run(self, plan, interrupted)
        self.seconds.append(result.seconds / result.steps)
        return result


@dataclass(slots=True)
class WorkClock:
    """Seconds that this process has computed, and those that were skipped while it had nothing to do."""

    skipped: float = 0.0

    def __call__(self) -> float:
        return process_time() + self.skipped

    def skip_to(self, moment: float) -> None:
        self.skipped += max(0.0, moment - self())


@dataclass(slots=True)
class Contestant:
    """One engine under one policy, paced as the cluster would pace it."""

    policy: ComposePolicy
    engine: Engine
    runner: TimedRunner
    clock: WorkClock
    _central: ClusterScheduler = field(default_factory=ClusterScheduler)
    _digests: int = 0
    _paced_at: float = -1.0
    _live: dict[str, tuple[Arrival, float, list[BlockTrace]]] = field(
        default_factory=dict[str, tuple[Arrival, float, list[BlockTrace]]]
    )
    _ended: list[RequestTrace] = field(default_factory=list[RequestTrace])

    @classmethod
    def load(cls, policy: ComposePolicy, model: Path, dtype: str) -> "Contestant":
        config = EngineConfig(slots=SLOTS, dtype=dtype, threads=1, compose_policy=policy)
        clock = WorkClock()
        engine = load_engine(model, config, clock=clock)
        plain = engine.runner
        runner = TimedRunner(plain.machine, plain.geometry, plain.loop, plain.clock)
        engine.runner = runner
        return cls(policy, engine, runner, clock)

    def play(self, arrivals: Sequence[Arrival]) -> tuple[list[RequestTrace], list[float]]:
        """Runs a round to its end; returns its requests and its forwards' seconds."""
        self._ended, self.runner.seconds = [], []
        lines = _lines(arrivals)
        open_ones = lines.pop(-1, [])[::-1]
        start = self.clock()
        for line in lines.values():
            self._submit(line.pop(0), 0.0)
        while open_ones or self._live:
            if not self._live:
                self.clock.skip_to(start + open_ones[-1].at)
            now = self.clock() - start
            while open_ones and open_ones[-1].at <= now:
                self._submit(open_ones.pop(), now)
            self._pace()
            for event in self.engine.step():
                if isinstance(event, BlockEvent) and self._book(event, self.clock() - start):
                    client = self._ended[-1].client
                    if lines.get(client):
                        self._submit(lines[client].pop(0), self.clock() - start)
        return self._ended, self.runner.seconds

    def _submit(self, arrival: Arrival, now: float) -> None:
        request = arrival.request
        if self.policy is not ComposePolicy.BALANCED:  # the others know of no classes
            request = replace(request, priority=Priority.STANDARD)
        self._live[request.request_id] = (arrival, max(now, arrival.at) if arrival.client < 0 else now, [])
        self.engine.submit(request)

    def _book(self, event: BlockEvent, now: float) -> bool:
        """Whether the block was its request's last."""
        arrival, arrived, blocks = self._live[event.request_id]
        blocks.append(BlockTrace(now, event.steps, len(event.tokens), event.seconds))
        if event.finish is None:
            return False
        del self._live[event.request_id]
        self._ended.append(_trace(arrival, arrived, tuple(blocks)))
        return True

    def _pace(self) -> None:
        now = self.clock()
        if now - self._paced_at < PACE_SECONDS:
            return
        self._paced_at, self._digests = now, self._digests + 1
        self._central.on_digest(self.engine.digest("engine", self._digests), now)
        for policy in self._central.policies(now).values():
            self.engine.set_policy(policy)


def _trace(arrival: Arrival, arrived: float, blocks: tuple[BlockTrace, ...]) -> RequestTrace:
    request = arrival.request
    return RequestTrace(
        request_id=request.request_id,
        arrival=arrived,
        prompt_tokens=len(request.prompt),
        max_tokens=request.sampling.max_tokens,
        blocks=blocks,
        client=arrival.client,
        priority=request.priority,
    )


def _lines(arrivals: Iterable[Arrival]) -> dict[int, list[Arrival]]:
    lines: dict[int, list[Arrival]] = {}
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at):
        lines.setdefault(arrival.client, []).append(arrival)
    return lines


def requests_of(contestant: Contestant, count: int, seed: int, priority: Priority) -> list[Request]:
    """Held-out tasks whose blocks take from one step to one a position."""
    rng = Random(seed)
    return [
        replace(
            job.request,
            priority=priority,
            diffusion=replace(job.request.diffusion, threshold=rng.choice(THRESHOLDS)),
        )
        for job in demo_jobs(contestant.engine.model, count, seed)
    ]


def closed(requests: Sequence[Request], clients: int = 2 * SLOTS) -> list[Arrival]:
    """Clients that ask again at once."""
    return [Arrival(0.0, request, index % clients) for index, request in enumerate(requests)]


def poisson(requests: Sequence[Request], rate: float, seed: int) -> list[Arrival]:
    """Independent arrivals, so many a second."""
    rng, at = Random(seed), 0.0
    arrivals: list[Arrival] = []
    for request in requests:
        at += rng.expovariate(rate)
        arrivals.append(Arrival(at, request))
    return arrivals


def burst(requests: Sequence[Request], at: float) -> list[Arrival]:
    """All at once."""
    return [Arrival(at, request) for request in requests]


def figures_of(
    ended: Sequence[RequestTrace], steps: Sequence[float], of: Priority | None
) -> dict[str, float]:
    """One round's figures; those of a closed loop end when its first client has nothing left to ask."""
    last_arrival = max(request.arrival for request in ended)
    whole = summarise(ended, SLO, until=last_arrival) if last_arrival > 0.0 else summarise(ended, SLO)
    chosen = [request for request in ended if of is None or request.priority == of]
    waits = summarise(chosen, SLO)
    return {
        "tokens_per_second": whole.tokens_per_second,
        "first_block_p50": waits.first_block_p50,
        "first_block_p99": waits.first_block_p99,
        "gap_p50": waits.gap_p50,
        "gap_p99": waits.gap_p99,
        "finish_p99": waits.finish_p99,
        "kept_share": waits.kept_share,
        "step_p99": percentile(steps, 0.99),
        "step_cv": variation(steps[len(steps) // 10 : -len(steps) // 4]),
    }


def contest(
    contestants: Sequence[Contestant],
    scenario: Callable[[Contestant, int], Sequence[Arrival]],
    rounds: int,
    of: Priority | None = None,
) -> Mapping[str, Mapping[str, Figure]]:
    """Policies in turn, A/B/A/B, each round with new tasks that are the same for all."""
    found: dict[str, list[dict[str, float]]] = {one.policy.value: [] for one in contestants}
    for number in range(rounds):
        for one in contestants:
            found[one.policy.value].append(figures_of(*one.play(scenario(one, number)), of))
    return {
        policy: {name: figure([one[name] for one in rounds_of]) for name in rounds_of[0]}
        for policy, rounds_of in found.items()
    }
