"""Static batches as models' own generation loops run them: all rows advance to the slowest one's end.

The composer called lockstep is kinder: a canvas that has settled commits and opens its next block
without waiting. Here every block of a batch takes the steps of its slowest row, and every row
as many blocks as the longest, or as max_tokens allows where a loop does not look for the end;
what is computed beyond a row's own end is lost.
"""

from collections.abc import Sequence
from dataclasses import replace

from easel.bench.phase_simulated import Scenario, replica_settings
from easel.bench.phase_work import CHAT, GEMMA_BLOCK, MAX_TOKENS
from easel.bench.report import Figure, figure
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.request import Request
from easel.scheduler.sim_work import BlockWork, OpenLoop, SimulatedRequest
from easel.scheduler.simulator import Simulation

BATCHES = 24


def static_throughput(seeds: range, scenario: Scenario) -> dict[str, Figure]:
    """Useful tokens a second of chat requests in padded batches, on a scenario's replica."""
    lengths = {"padded to the longest": 0, "padded to max_tokens": MAX_TOKENS // GEMMA_BLOCK}
    return {
        name: figure([_throughput(seed, blocks, scenario) for seed in seeds])
        for name, blocks in lengths.items()
    }


def _throughput(seed: int, blocks: int, scenario: Scenario) -> float:
    works = [CHAT.request(seed, number, 0.0) for number in range(BATCHES * scenario.slots)]
    useful = sum(block.tokens for work in works for block in work.blocks)
    batches = [works[first : first + scenario.slots] for first in range(0, len(works), scenario.slots)]
    padded = [work for batch in batches for work in pad(batch, blocks)]
    central = ClusterScheduler(ClusterLimits(max_waiting=len(works), queue_ahead=len(works)))
    settings = replica_settings(scenario, ComposePolicy.LOCKSTEP)
    outcome = Simulation(OpenLoop(iter(padded)), settings, central=central).run()
    return useful / outcome.seconds


def pad(batch: Sequence[SimulatedRequest], blocks: int = 0) -> list[SimulatedRequest]:
    """The batch's requests with as many blocks as the longest, at least `blocks`, and steps as the slowest.

    A block that nobody needs takes the steps of the one before.
    """
    longest = max(len(work.blocks) for work in batch)
    steps = [
        max(work.blocks[index].steps for work in batch if index < len(work.blocks))
        for index in range(longest)
    ]
    steps += [steps[-1]] * (blocks - longest)
    # Full ones: the last would else be followed by nothing, and the request end sooner.
    full = tuple(BlockWork(count, GEMMA_BLOCK) for count in steps)
    return [replace(work, request=_lasting(work, len(full)), blocks=full) for work in batch]


def _lasting(work: SimulatedRequest, blocks: int) -> Request:
    sampling = replace(work.request.sampling, max_tokens=blocks * GEMMA_BLOCK)
    return replace(work.request, sampling=sampling)
