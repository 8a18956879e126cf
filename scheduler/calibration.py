"""Fits a simulated cluster to a recorded one: how slow steps are, and what a request costs besides.

The replicas' own fitted costs are the start. Two numbers are left open, because a replica cannot
see them: a factor on every step (what shares the machine slows it down) and the seconds a request
spends outside of the replica (HTTP, placement, streams). Both are moved until a simulation of the
trace shows the recorded means; what scatters about the factor can be drawn anew as noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from easel.scheduler.cost import DEFAULT_PRIOR, CostModel
from easel.scheduler.messages import CostCoefficients, Row
from easel.scheduler.sim_outcome import Delays, Outcome
from easel.scheduler.sim_work import Replay
from easel.scheduler.simulated_replica import ReplicaSettings, StepCost
from easel.scheduler.simulator import Simulation
from easel.scheduler.trace import RequestTrace, Trace, TraceHeader

ROUNDS = 12
SHORT_STEPS = 2
SHORTEST_DELAY = 1e-5  # seconds


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a trace says beyond its header."""

    cost: CostCoefficients
    step_factor: float = 1.0
    request_seconds: float = 2e-3  # outside of the replica, over the life of a request
    noise: tuple[float, ...] = ()  # factors of steps, drawn at random; (): none
    seed: int = 0

    def step_cost(self) -> StepCost:
        """Seconds of a plan's forward; one sequence of noise for each call of this."""
        model, rng = CostModel(self.cost), Random(self.seed)

        def seconds(rows: Sequence[Row]) -> float:
            noise = rng.choice(self.noise) if self.noise else 1.0
            return model.of(rows) * self.step_factor * noise

        return seconds

    @property
    def delays(self) -> Delays:
        """A third of a request's own seconds for each message of its life."""
        each = max(SHORTEST_DELAY, self.request_seconds / 3)
        return Delays(to_scheduler=each, to_replica=each, to_client=each)


def replay(header: TraceHeader, requests: Sequence[RequestTrace], calibration: Calibration) -> Outcome:
    """The trace's requests in a simulated cluster of its kind."""
    settings = ReplicaSettings(
        header.shape, calibration.step_cost(), prior=CostModel(calibration.cost), log_steps=False
    )
    load = Replay(requests)
    return Simulation(load, settings, replicas=header.replicas, delays=calibration.delays).run()


def calibrate(trace: Trace, requests: Sequence[RequestTrace] | None = None, seed: int = 0) -> Calibration:
    """Fits the open numbers to `requests`, by default all of the trace's."""
    fitted_to = requests if requests is not None else trace.requests
    recorded = _Means.of(fitted_to)
    found = Calibration(trace.header.cost or DEFAULT_PRIOR, seed=seed)
    tried: list[Calibration] = []
    for turn in range(ROUNDS):
        simulated = replay(trace.header, fitted_to, found).requests
        means = _Means.of(simulated)
        found = replace(
            found,
            step_factor=found.step_factor * recorded.canvas / max(means.canvas, 1e-9),
            request_seconds=max(0.0, found.request_seconds + recorded.overhead - means.overhead),
        )
        tried.append(found)
        if turn == ROUNDS // 3:
            found = replace(found, noise=_noise(fitted_to, simulated))
    # Under noise no single round is the best one.
    last = tried[-ROUNDS // 2 :]
    return replace(
        found,
        step_factor=sum(one.step_factor for one in last) / len(last),
        request_seconds=sum(one.request_seconds for one in last) / len(last),
    )


def _noise(recorded: Sequence[RequestTrace], simulated: Sequence[RequestTrace]) -> tuple[float, ...]:
    """How recorded short blocks differ from simulated ones, as factors of mean 1.

    Blocks of a step or two, because over many steps the noise averages out.
    """
    known = {request.request_id: request for request in recorded}
    factors = sorted(
        block.seconds / like.seconds
        for request in simulated
        for block, like in zip(known[request.request_id].blocks, request.blocks, strict=False)
        if block.steps <= SHORT_STEPS and like.seconds > 0.0
    )
    mean = sum(factors) / max(1, len(factors))
    return tuple(factor / mean for factor in factors)


@dataclass(frozen=True, slots=True)
class _Means:
    """Seconds a canvas was open, summed over a request's blocks, and those nobody accounts for."""

    canvas: float
    overhead: float

    @staticmethod
    def of(requests: Sequence[RequestTrace]) -> "_Means":
        canvas = sum(block.seconds for request in requests for block in request.blocks) / len(requests)
        return _Means(canvas, sum(request.overhead_seconds for request in requests) / len(requests))
