# pyright: basic, reportMissingImports=false
"""A whole quantum of steps in one launch: a CUDA graph with a WHILE node (CUDA 12.4) around the step."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from easel.worker.cuda_graphs import warm_up
from easel.worker.graph_loop import LoopState, Recording
from easel.worker.host_loop import Interrupted
from easel.worker.step_program import Node

POLL_SECONDS = 50e-6  # between two looks at whether something is to be done first

# Only device code can set a conditional node's condition.
PROCEED = r"""
extern "C" __device__ __cudart_builtin__ void CUDARTAPI
cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned int value);

extern "C" __global__ void
proceed(cudaGraphConditionalHandle handle, const bool* going, const volatile int* preempted) {
    cudaGraphSetConditional(handle, *going && !*preempted);
}
"""


def compiled_proceed(architecture: str) -> Any:
    """cuda.core's ObjectCode of the kernel that sets the condition, for sm_90 or the like. Needs no GPU."""
    # Imported here, as everywhere in this file: cuda.core is only where there is a GPU.
    from cuda.core import Program, ProgramOptions  # noqa: PLC0415

    return Program(PROCEED, "c++", ProgramOptions(std="c++17", arch=architecture)).compile("cubin")


@dataclass(frozen=True, slots=True)
class WhileRecorder:
    """One graph of as many steps as the loop's state allows; the host launches it once."""

    pause: Callable[[float], None] = time.sleep

    def record(self, nodes: Sequence[Node], state: LoopState) -> Recording:
        from cuda.core import Device, LaunchConfig, launch  # noqa: PLC0415

        device = Device(torch.cuda.current_device())
        device.set_current()
        proceed = compiled_proceed(f"sm_{device.arch}").get_kernel("proceed")
        preempted = torch.zeros(1, dtype=torch.int32, pin_memory=True)
        # What the step allocates must lie where nothing else is put as long as the graph lives.
        pool = torch.cuda.MemPool()
        with torch.cuda.use_mem_pool(pool):
            warm_up(nodes)
        builder = device.create_stream().create_graph_builder().begin_building("thread_local")
        condition = builder.create_condition(default_value=1)
        body = builder.while_loop(condition).begin_building("thread_local")
        stream = torch.cuda.ExternalStream(int(body.stream.handle))
        with torch.cuda.stream(stream), torch.cuda.use_mem_pool(pool):
            for node in nodes:
                node.run()
        one = LaunchConfig(grid=1, block=1)
        launch(body, one, proceed, condition, state.going.data_ptr(), preempted.data_ptr())
        body.end_building()
        graph = builder.end_building().complete()
        return LoopedSteps(graph, pool, preempted, self.pause)


@dataclass(frozen=True, slots=True)
class LoopedSteps:
    """The host only waits, and asks for an end when something is to be done first."""

    graph: Any  # cuda.core's Graph
    pool: torch.cuda.MemPool
    preempted: Tensor  # [1]  int32  pinned; the device reads it after each step
    pause: Callable[[float], None]

    def run(self, most: int, interrupted: Interrupted) -> None:
        """`most` is in the loop's state; a preempted loop ends after the step under way."""
        self.preempted.zero_()
        stream = torch.cuda.current_stream()
        self.graph.launch(_Borrowed(stream))
        ended = torch.cuda.Event()
        ended.record(stream)
        while not ended.query():
            if interrupted():
                self.preempted.fill_(1)
                ended.synchronize()
                return
            self.pause(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class _Borrowed:
    """A torch stream as cuda.core takes it."""

    stream: torch.cuda.Stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.stream.cuda_stream
