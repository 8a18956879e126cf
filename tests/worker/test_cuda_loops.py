"""What of the loops on a GPU can be known without one: when they stop, and that their kernel compiles."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch

from easel.worker.cuda_graphs import ReplayedStep
from easel.worker.graph_loop import LoopState


@dataclass(slots=True)
class Graph:
    """A step that finishes its canvas at the `last` launch; like an IF node it does nothing after that."""

    state: LoopState
    last: int
    launches: int = 0
    steps: int = 0

    def replay(self) -> None:
        self.launches += 1
        if bool(self.state.going):
            self.steps += 1
            self.state.going.fill_(self.steps < min(self.last, int(self.state.most)))


@dataclass(slots=True)
class Stream:
    """Everything is done as soon as it is asked for, but only heard of when waited for."""

    waited: list[str] = field(default_factory=list[str])

    def wait_stream(self, _other: object) -> None: ...

    def record(self, _stream: object) -> None: ...

    def synchronize(self) -> None:
        self.waited.append("step")


@pytest.fixture(autouse=True)
def _no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def current_stream() -> Stream:
        return Stream()

    def stream(_stream: object) -> nullcontext[None]:
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)


def test_the_host_hears_one_step_late_that_a_canvas_is_finished() -> None:
    graph = _run(last=3, most=10)
    assert (graph.steps, graph.launches) == (3, 4)


def test_no_more_steps_are_launched_than_the_plan_allows() -> None:
    graph = _run(last=99, most=5)
    assert (graph.steps, graph.launches) == (5, 5)


def test_an_interruption_ends_it_after_the_step_under_way() -> None:
    graph = _run(last=99, most=10, interrupted=lambda: True)
    assert (graph.steps, graph.launches) == (2, 2)


def test_the_kernel_that_loops_compiles_for_hopper() -> None:
    """Where cuda.core and NVRTC are installed; neither needs a GPU."""
    pytest.importorskip("cuda.core", reason="needs the extra 'cuda'")
    from easel.worker.cuda_while import compiled_proceed  # noqa: PLC0415

    assert len(compiled_proceed("sm_90").code) > 1000


def _run(last: int, most: int, interrupted: Callable[[], bool] = lambda: False) -> Graph:
    state = LoopState.allocate(torch.device("cpu"))
    state.start(most)
    graph, stream = Graph(state, last), cast(Any, Stream())
    pair = torch.empty(1, dtype=torch.bool), torch.empty(1, dtype=torch.bool)
    other = torch.empty(1, dtype=torch.bool), torch.empty(1, dtype=torch.bool)
    ReplayedStep(cast(Any, graph), state, stream, pair, other, (stream, stream)).run(most, interrupted)
    return graph
