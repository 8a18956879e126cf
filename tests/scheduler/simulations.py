"""Small simulated clusters for tests."""

from random import Random

from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.cost import CostModel
from easel.scheduler.messages import CostCoefficients, ReplicaShape
from easel.scheduler.sim_outcome import Delays
from easel.scheduler.sim_work import (
    BlockWork,
    Load,
    OpenLoop,
    SimulatedRequest,
    draw_blocks,
    simulated_request,
)
from easel.scheduler.simulated_replica import ReplicaSettings
from easel.scheduler.simulator import Simulation
from tests.fakes import shape

COST = CostCoefficients(1e-3, 1e-5, 1e-9, 1e-6)
NO_DELAYS = Delays(to_scheduler=0.0, to_replica=0.0, to_client=0.0)


def work(
    name: str, arrival: float = 0.0, prompt: int = 6, blocks: tuple[BlockWork, ...] = ()
) -> SimulatedRequest:
    """A request of blocks that are said; max_tokens is 8 beyond them."""
    said = sum(block.tokens for block in blocks)
    return SimulatedRequest(arrival, simulated_request(name, prompt, said + 8), blocks)


def random_works(count: int, seed: int, spread: float = 0.5, block: int = 4) -> list[SimulatedRequest]:
    """Requests of all sizes, in the order of arrival."""
    rng = Random(seed)
    works: list[SimulatedRequest] = []
    for index in range(count):
        prompt = rng.randint(1, 40)
        # In a block-causal layout the first block begins with what is left of the prompt.
        blocks = draw_blocks(rng, lambda draw: draw.randint(1, 5), rng.randint(1, 20), block, prompt % block)
        arrival, name = rng.uniform(0.0, spread), f"{seed}-{index}"
        works.append(SimulatedRequest(arrival, simulated_request(name, prompt, 24), blocks))
    return sorted(works, key=lambda one: one.arrival)


def settings(
    of: ReplicaShape | None = None, policy: ComposePolicy = ComposePolicy.BALANCED
) -> ReplicaSettings:
    """Replicas whose steps cost what COST says, which they know from the beginning."""
    cost = CostModel(COST)
    return ReplicaSettings(of or shape(), cost.of, compose_policy=policy, prior=cost)


def simulate(
    load: Load | list[SimulatedRequest],
    of: ReplicaSettings | None = None,
    *,
    replicas: int = 1,
    delays: Delays = NO_DELAYS,
    limits: ClusterLimits | None = None,
) -> Simulation:
    """A simulation that has run to its end; where no delays are said, messages take no time."""
    source = OpenLoop(iter(load)) if isinstance(load, list) else load
    central = ClusterScheduler(limits or ClusterLimits(max_waiting=10_000))
    cluster = Simulation(source, of or settings(), replicas=replicas, central=central, delays=delays)
    cluster.run()
    return cluster
