"""The contest of composition policies on a simulated replica, with the costs of an H200."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from easel.bench.phase_steps import RooflineSteps
from easel.bench.phase_work import (
    BATCH,
    CHAT,
    GEMMA_BLOCK,
    INTERACTIVE,
    LLADA,
    LLADA_BLOCK,
    LONG,
    Backlog,
    bursts,
    closed,
    open_loop,
    poisson,
)
from easel.bench.report import Figure, figure
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import ReplicaShape
from easel.scheduler.request import Priority
from easel.scheduler.sim_report import Slo, percentile, summarise, variation
from easel.scheduler.sim_work import Load, SimulatedRequest
from easel.scheduler.simulated_replica import ReplicaSettings, StepLog
from easel.scheduler.simulator import Simulation
from easel.worker.devices import known_device
from easel.worker.sketch import sketch_preset

GEMMA, LLADA_MODEL, DEVICE = "DiffusionGemma-26B-A4B", "LLaDA-8B-Instruct", "H200"
POLICIES = (
    ComposePolicy.LOCKSTEP,
    ComposePolicy.SEGREGATED,
    ComposePolicy.FCFS,
    ComposePolicy.BALANCED,
)
WARM_UP = 0.1  # share of the time that arrivals last, not counted
SLO = Slo(first_block=5.0, gap=2.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload on a replica of so many slots; arrivals end after `seconds`."""

    name: str
    load: Callable[[int, int, float], Load]  # seed, slots, seconds
    slots: int = 8
    seconds: float = 150.0
    saturated: bool = False  # there is always more work than slots
    model: str = GEMMA
    of: Priority | None = None  # the class that latencies are of; None: all


def _chat(seed: int, slots: int, seconds: float) -> Load:
    return closed(CHAT, seed, 2 * slots, until=seconds)


def _chat_open(seed: int, slots: int, seconds: float) -> Load:
    return open_loop(poisson(CHAT, seed, 0.4 * slots, until=seconds))


def _bursts(seed: int, slots: int, seconds: float) -> Load:
    steady = poisson(CHAT, seed, 0.2 * slots, until=seconds)
    return open_loop(steady, bursts(CHAT, seed, 6 * slots, every=50.0, first=25.0, until=seconds))


def _interactive(seed: int, slots: int, seconds: float) -> Load:
    others = open_loop(bursts(INTERACTIVE, seed, slots, every=15.0, first=16.0, until=seconds))
    return Backlog(closed(BATCH, seed, 8 * slots, until=seconds), others)


def _long(seed: int, slots: int, seconds: float) -> Load:
    return closed(LONG, seed, 2 * slots, until=seconds)


def _llada(seed: int, slots: int, seconds: float) -> Load:
    return closed(LLADA, seed, 2 * slots, until=seconds)


SCENARIOS = (
    Scenario("chat, saturated", _chat, saturated=True),
    Scenario("chat, 32 slots, saturated", _chat, slots=32, seconds=200.0, saturated=True),
    Scenario("chat, open, 80 % load", _chat_open),
    Scenario("bursts over 40 % load", _bursts),
    Scenario("interactive bursts over a batch backlog", _interactive, of=Priority.INTERACTIVE),
    Scenario("a tenth long prompts, saturated", _long, saturated=True),
    Scenario(
        "whole-sequence rebuilds, saturated",
        _llada,
        slots=32,
        seconds=150.0,
        saturated=True,
        model=LLADA_MODEL,
    ),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One policy on one scenario and seed."""

    tokens_per_second: float
    first_block_p50: float  # seconds, as all that follow
    first_block_p99: float
    gap_p50: float
    gap_p99: float
    finish_p99: float
    kept_share: float
    goodput: float
    step_p99: float
    step_cv: float


class OneClass:
    """A load whose requests all are of one class, for policies that know of none."""

    def __init__(self, load: Load) -> None:
        self._load = load

    def first(self) -> SimulatedRequest | None:
        return _standard(self._load.first())

    def following(self, arrived: SimulatedRequest) -> SimulatedRequest | None:
        return _standard(self._load.following(arrived))

    def after(self, client: int, now: float) -> SimulatedRequest | None:
        return _standard(self._load.after(client, now))


def _standard(work: SimulatedRequest | None) -> SimulatedRequest | None:
    if work is None:
        return None
    return replace(work, request=replace(work.request, priority=Priority.STANDARD))


def replica_settings(scenario: Scenario, policy: ComposePolicy) -> ReplicaSettings:
    """The replica of a scenario under a policy."""
    sketch = sketch_preset(scenario.model)
    block = GEMMA_BLOCK if scenario.model == GEMMA else LLADA_BLOCK
    layout = sketch.info.family.layout
    shape = ReplicaShape(
        slots=scenario.slots,
        pages=scenario.slots * 160,
        page_size=GEMMA_BLOCK,
        block_length=block,
        max_model_tokens=65_536,
        eos_token_ids=frozenset({1}),
        layout=layout,
        partial=not layout.shares_prefix,
    )
    cost = RooflineSteps(sketch.anatomy, known_device(DEVICE), layout)
    return ReplicaSettings(shape, cost, compose_policy=policy)


def simulate(scenario: Scenario, policy: ComposePolicy, seed: int) -> Measured:
    """One policy on one scenario; baselines see neither classes nor deadlines."""
    load = scenario.load(seed, scenario.slots, scenario.seconds)
    balanced = policy is ComposePolicy.BALANCED
    limits = ClusterLimits(
        max_waiting=100_000, queue_ahead=scenario.slots, preempt=balanced, rebalance=balanced
    )
    simulation = Simulation(
        load if balanced else OneClass(load),
        replica_settings(scenario, policy),
        central=ClusterScheduler(limits),
    )
    outcome = simulation.run()
    since, until = WARM_UP * scenario.seconds, scenario.seconds
    names = ("interactive",) if scenario.of is Priority.INTERACTIVE else None
    of = [r for r in outcome.requests if names is None or r.request_id.startswith(names)]
    figures = summarise(of, SLO, since=since, until=until)
    whole = summarise(outcome.requests, SLO, since=since, until=until)
    (replica,) = simulation.replicas.values()
    steps = _steps_between(replica.log, since, until)
    return Measured(
        tokens_per_second=whole.tokens_per_second,
        first_block_p50=figures.first_block_p50,
        first_block_p99=figures.first_block_p99,
        gap_p50=figures.gap_p50,
        gap_p99=figures.gap_p99,
        finish_p99=figures.finish_p99,
        kept_share=figures.kept_share,
        goodput=figures.goodput,
        step_p99=percentile(steps, 0.99),
        step_cv=variation(steps),
    )


def contest(scenario: Scenario, seeds: range) -> Mapping[str, Mapping[str, Figure]]:
    """Every figure of every policy, over the seeds."""
    found: dict[str, Mapping[str, Figure]] = {}
    for policy in POLICIES:
        rounds = [asdict(simulate(scenario, policy, seed)) for seed in seeds]
        found[policy.value] = {name: figure([one[name] for one in rounds]) for name in rounds[0]}
    return found


def _steps_between(log: StepLog, since: float, until: float) -> list[float]:
    pairs = zip(log.began, log.seconds, strict=True)
    return [seconds for began, seconds in pairs if since <= began < until]
