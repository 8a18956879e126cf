"""The loop of steps on the device: a step is recorded once for a number of canvases, then launched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from easel.kernels.commit import StepTraits
from easel.worker.batch import ForwardBatch
from easel.worker.fixed_inputs import Bounds, FixedInputs, bucket_of, fits
from easel.worker.host_loop import HostLoop, Interrupted
from easel.worker.step_program import Machine, Node, StepProgram


@dataclass(frozen=True, slots=True)
class LoopState:
    """What decides on the device whether another step takes place."""

    going: Tensor  # [1]  bool  while no canvas of the batch is finished and steps are left
    taken: Tensor  # [1]  int32  steps that took place
    most: Tensor  # [1]  int32

    @classmethod
    def allocate(cls, device: torch.device) -> "LoopState":
        taken, most = torch.zeros(2, 1, dtype=torch.int32, device=device)
        return cls(torch.zeros(1, dtype=torch.bool, device=device), taken, most)

    def start(self, most: int) -> None:
        self.going.fill_(True)
        self.taken.fill_(0)
        self.most.fill_(most)


class Recording(Protocol):
    """A recorded step."""

    def run(self, most: int, interrupted: Interrupted) -> None:
        """Take steps while the loop's state says so, and not many more once interrupted."""
        ...


class Recorder(Protocol):
    """A way to record a step on a device and to launch it again."""

    def record(self, nodes: Sequence[Node], state: LoopState) -> Recording:
        """Record the nodes, which run only while `state.going` is true. They may be run in doing so."""
        ...


@dataclass(slots=True)
class Recorded:
    inputs: FixedInputs
    state: LoopState
    recording: Recording


@dataclass(slots=True)
class GraphLoop:
    """Steps of batches that hold canvases only are recorded; others are the host's.

    A recording is kept for each bucket of batch sizes and each set of traits. Registers, pages and
    weights are where they always are; what differs from batch to batch is copied to where the
    recording reads it.
    """

    machine: Machine
    recorder: Recorder
    bounds: Bounds
    sizes: Sequence[int]  # buckets, ascending
    host: HostLoop = field(default_factory=HostLoop)
    recordings: dict[tuple[int, StepTraits], Recorded] = field(
        default_factory=dict[tuple[int, StepTraits], Recorded]
    )

    def run(self, program: StepProgram, most: int, interrupted: Interrupted) -> int:
        batch, traits = program.batch, program.traits
        if traits.cut or not fits(batch, self.bounds):
            return self.host.run(program, most, interrupted)
        recorded = self._recording_of(batch, traits)
        recorded.inputs.load(batch)
        recorded.state.start(most)
        recorded.recording.run(most, interrupted)
        return int(recorded.state.taken)

    def _recording_of(self, batch: ForwardBatch, traits: StepTraits) -> Recorded:
        key = bucket_of(len(batch.slots), self.sizes), traits
        found = self.recordings.get(key)
        if found is None:
            found = self._record(key[0], traits)
            self.recordings[key] = found
        return found

    def _record(self, canvases: int, traits: StepTraits) -> Recorded:
        """Recorded on the spare slot, whose canvas is not active, so that no state changes."""
        registers, page_size = self.machine.registers, self.machine.cache.page_size
        inputs = FixedInputs.allocate(canvases, self.bounds, page_size, registers.device)
        inputs.clear()
        state = LoopState.allocate(registers.device)
        state.start(1)
        program = StepProgram(self.machine, inputs.batch, traits)
        nodes = (*program.nodes, Node("count", _counting(program, inputs, state)))
        return Recorded(inputs, state, self.recorder.record(nodes, state))


def _counting(program: StepProgram, inputs: FixedInputs, state: LoopState) -> Callable[[], None]:
    def count() -> None:
        state.taken.add_(1)
        unfinished = (program.active() | ~inputs.real).all()
        state.going.copy_(unfinished & (state.taken < state.most))

    return count
