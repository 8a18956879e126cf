"""The ways to loop over steps, beside each other on one replica, and how long the device waits in each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import torch

from easel.bench.h200_cells import Line
from easel.bench.h200_parts import Marks
from easel.bench.h200_replica import Lap, Replica, take_turns
from easel.worker.config import LoopKind
from easel.worker.cuda_graphs import ReplayedStep
from easel.worker.graph_loop import GraphLoop, Recording
from easel.worker.host_loop import HostLoop, StepLoop, never
from easel.worker.loops import step_loop
from easel.worker.runner import Runner

Until = Callable[[], bool]
LoopMaker = Callable[[LoopKind, Replica], StepLoop]

STEP_BY_STEP = (LoopKind.HOST, LoopKind.GRAPH, LoopKind.WHILE)


def cuda_loop(kind: LoopKind, replica: Replica) -> StepLoop:
    """As an engine has it. Raises WorkerError where the device or what is installed cannot run it."""
    return step_loop(kind, replica.machine, replica.shape, replica.sketch.dimensions)


@dataclass(slots=True)
class Loops:
    """A replica's loops of every kind, each made when it is first asked for."""

    replica: Replica
    make: LoopMaker
    made: dict[LoopKind, Runner] = field(default_factory=dict[LoopKind, Runner])

    def lap(self, kind: LoopKind) -> Lap:
        """One whole canvas of each slot."""
        runner = self.made.get(kind)
        if runner is None:
            runner = self.made[kind] = self.replica.runner(self.make(kind, self.replica))
        return self.replica.lap(runner)

    def laps(self, kinds: Sequence[LoopKind]) -> dict[str, Callable[[], Lap]]:
        return {kind.value: (lambda kind=kind: self.lap(kind)) for kind in kinds}

    def recorded(self) -> GraphLoop | None:
        """The loop of graphs, if it has recorded a step."""
        runner = self.made.get(LoopKind.GRAPH)
        loop = None if runner is None else runner.loop
        return loop if isinstance(loop, GraphLoop) and loop.recordings else None


def compare_loops(
    cell: str,
    loops: Loops,
    rounds: int,
    until: Until,
    kinds: Sequence[LoopKind] = STEP_BY_STEP,
) -> list[Line]:
    """A line for each kind of loop; idle time is known where a step was recorded.

    A step's idle time is what it takes longer than the same step in graphs that are replayed one
    behind the other, without a host that waits for any. Gaps between a graph's kernels are the
    device's own and count as busy.
    """
    lines = take_turns(cell, loops.replica.scene, loops.laps(kinds), rounds, until)
    loop = loops.recorded()
    if loop is None:
        return lines
    busy = back_to_back(loops.replica, loop, rounds)
    return [line if line.step is None else replace(line, busy=busy) for line in lines]


@torch.inference_mode()
def back_to_back(replica: Replica, loop: GraphLoop, rounds: int) -> float:
    """Seconds of a recorded step when the device never waits for the host."""
    steps, marks = replica.scene.steps - 1, Marks(replica.device)
    found: list[float] = []
    for _ in range(rounds):
        replica.runner(HostLoop()).run(replica.opening())
        batch = replica.program(replica.reusing(steps)).batch
        recorded = next(iter(loop.recordings.values()))
        recorded.inputs.load(batch)
        recorded.state.start(steps)
        marks.delay()
        begin = marks.mark()
        _launch(recorded.recording, steps)
        found.append(marks.seconds(begin, marks.mark()) / steps)
        if int(recorded.state.taken) != steps:
            raise RuntimeError(f"{int(recorded.state.taken)} steps were replayed, not {steps}")
    return median(found)


def best(lines: Sequence[Line], variants: Sequence[str]) -> Line | None:
    """The fastest of some variants by the time of a step; None when none was measured."""
    timed = {line.step.median: line for line in lines if line.variant in variants and line.step is not None}
    return timed[min(timed)] if timed else None


def _launch(recording: Recording, steps: int) -> None:
    if isinstance(recording, ReplayedStep):
        for _ in range(steps):
            recording.graph.replay()
    else:
        recording.run(steps, never)
