"""Loops without a GPU: the fixed inputs and nodes of recorded ones, which are simply run again.

So a dry run goes through every line but the recorders' own and those of Triton's kernels.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor

from easel.bench.h200_replica import Replica
from easel.kernels.attention import canvas_attention, reference_canvas_attention
from easel.kernels.attention_layout import (
    AttentionLayout,
    AttentionRow,
    laid_out_rows,
    ragged_rows,
)
from easel.kernels.persistent import PersistentControl
from easel.worker import batch
from easel.worker.config import LoopKind
from easel.worker.denoise import MaskedDenoiser
from easel.worker.fixed_inputs import Bounds
from easel.worker.graph_loop import GraphLoop, LoopState, Recording
from easel.worker.host_loop import HostLoop, Interrupted, StepLoop
from easel.worker.models import decoder, gemma_layers
from easel.worker.persistent_loop import PersistentLoop, persistent_weights
from easel.worker.step_program import Node


@dataclass(frozen=True, slots=True)
class RerunRecorder:
    """Keeps the nodes."""

    def record(self, nodes: Sequence[Node], state: LoopState) -> Recording:
        return RerunStep(tuple(nodes), state)


@dataclass(frozen=True, slots=True)
class RerunStep:
    nodes: tuple[Node, ...]
    state: LoopState

    def run(self, most: int, interrupted: Interrupted) -> None:
        for _ in range(most):
            if not bool(self.state.going) or interrupted():
                return
            for node in self.nodes:
                node.run()


def dry_loop(kind: LoopKind, replica: Replica) -> StepLoop:
    """A loop of that kind, in its parts that need no GPU. Raises TypeError for a model it does not cover."""
    if kind is LoopKind.HOST:
        return HostLoop()
    machine, pages = replica.machine, (replica.scene.pages,) * len(replica.geometry.windows)
    bounds = Bounds(replica.shape.block_length, pages, replica.shape.slots)
    if kind is not LoopKind.PERSISTENT:
        return GraphLoop(machine, RerunRecorder(), bounds, (replica.shape.slots,))
    if not isinstance(machine.denoiser, MaskedDenoiser):
        raise TypeError(
            f"a persistent loop denoises masks; the model has a {type(machine.denoiser).__name__}"
        )
    control = PersistentControl.allocate(replica.device)
    return PersistentLoop(machine, machine.denoiser, persistent_weights(machine.model), bounds, control)


@contextmanager
def ragged_on_cpu() -> Generator[None]:
    """Rows are laid out as a GPU's kernel reads them, and attended by its definition."""

    def layout(
        rows: Sequence[AttentionRow],
        page_size: int,
        device: torch.device,
        *,
        fixed: bool,  # noqa: ARG001  nothing is padded
    ) -> AttentionLayout:
        return AttentionLayout((), ragged_rows(rows, page_size, device))

    with ExitStack() as stack:
        stack.enter_context(patch.object(batch, "attention_layout", layout))
        for module in (decoder, gemma_layers):
            stack.enter_context(patch.object(module, "canvas_attention", _attention))
        yield


def _attention(
    q: Tensor, k: Tensor, v: Tensor, k_store: Tensor, v_store: Tensor, layout: AttentionLayout, scale: float
) -> Tensor:
    ragged = layout.ragged
    if ragged is None:
        return canvas_attention(q, k, v, k_store, v_store, layout, scale)
    rows = laid_out_rows(ragged)
    return reference_canvas_attention(q, k, v, k_store, v_store, rows, ragged.page_size, scale)
