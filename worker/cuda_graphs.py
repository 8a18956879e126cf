"""Recorded steps on NVIDIA GPUs: CUDA graphs whose body the device skips once a canvas is finished."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easel.worker.graph_loop import LoopState, Recording
from easel.worker.host_loop import Interrupted
from easel.worker.step_program import Node

WARM_UPS = 2  # runs before recording: kernels are compiled and libraries set themselves up


def warm_up(nodes: Sequence[Node]) -> None:
    """Run the nodes on a stream of their own, as recording demands."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            for node in nodes:
                node.run()
    torch.cuda.current_stream().wait_stream(stream)


@dataclass(frozen=True, slots=True)
class GraphRecorder:
    """One graph of one step, launched by the host again and again."""

    def record(self, nodes: Sequence[Node], state: LoopState) -> Recording:
        warm_up(nodes)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on using CUDA while this one records.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            graph.begin_capture_to_if_node(state.going)
            for node in nodes:
                node.run()
            graph.end_capture_to_conditional_node()
        return ReplayedStep.of(graph, state)


@dataclass(frozen=True, slots=True)
class ReplayedStep:
    """Whether to go on is read one step late, so that the device never waits for the host."""

    graph: torch.cuda.CUDAGraph
    state: LoopState
    side: torch.cuda.Stream
    seen: tuple[Tensor, Tensor]  # [1]  bool  on the device: `going` after the last two steps
    told: tuple[Tensor, Tensor]  # [1]  bool  the same in pinned memory
    copied: tuple[torch.cuda.Event, torch.cuda.Event]

    @classmethod
    def of(cls, graph: torch.cuda.CUDAGraph, state: LoopState) -> "ReplayedStep":
        seen = torch.empty_like(state.going), torch.empty_like(state.going)
        told = tuple(torch.empty(1, dtype=torch.bool, pin_memory=True) for _ in range(2))
        events = torch.cuda.Event(), torch.cuda.Event()
        return cls(graph, state, torch.cuda.Stream(), seen, (told[0], told[1]), events)

    def run(self, most: int, interrupted: Interrupted) -> None:
        """A step that is launched after the last one of the loop finds `going` at 0 and does nothing."""
        for index in range(most):
            self.graph.replay()
            self._tell(index % 2)
            if index and (interrupted() or not self._heard((index - 1) % 2)):
                return

    def _tell(self, turn: int) -> None:
        """Send `going` as it is after this step to the host, beside the next step."""
        self.seen[turn].copy_(self.state.going)
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self.told[turn].copy_(self.seen[turn], non_blocking=True)
            self.copied[turn].record(self.side)

    def _heard(self, turn: int) -> bool:
        self.copied[turn].synchronize()
        return bool(self.told[turn])
