"""A recorder of steps that needs no GPU, with what makes CUDA graphs dangerous: everything the host
decided while recording stays decided, every tensor stays where it was."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from easel.kernels import attention_triton, head_triton, row_stats
from easel.kernels.attention import reference_canvas_attention
from easel.kernels.attention_layout import (
    AttentionLayout,
    AttentionRow,
    RaggedRows,
    laid_out_rows,
    ragged_rows,
)
from easel.kernels.row_stats import reference_row_stats
from easel.kernels.tiles import Draw, Head, RowStats
from easel.worker import batch
from easel.worker.graph_loop import LoopState, Recording
from easel.worker.host_loop import Interrupted
from easel.worker.step_program import Node

# Operators whose result's shape, or whose Python value, depends on what a tensor holds.
WAITING = frozenset(
    {
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
        torch.ops.aten.bincount.default,
        torch.ops.aten.repeat_interleave.Tensor,
        torch.ops.aten.is_nonzero.default,
        torch.ops.aten.equal.default,
        torch.ops.aten._unique2.default,
    }
)


class HostWaited(AssertionError):
    """A step asked the device for something while it was recorded."""


@dataclass(slots=True)
class Tape:
    """What was launched, in order; each entry launches it again with the same arguments."""

    launches: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    recording: bool = False

    def launched(self, kernel: Callable[..., None]) -> Callable[..., None]:
        """A Triton launch that is taped."""

        def launch(*args: Any, **kwargs: Any) -> None:
            with _disable_current_modes():
                kernel(*args, **kwargs)
            if self.recording:
                self.launches.append(lambda: kernel(*args, **kwargs))

        return launch


class _Operators(TorchDispatchMode):
    """Tapes every operator."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        _refuse_waiting(func, args)
        found = func(*args, **given)
        results = _tensors(found)
        inputs = {tensor.untyped_storage().data_ptr() for tensor in _tensors([args, given])}
        kept = [tensor for tensor in results if tensor.untyped_storage().data_ptr() not in inputs]

        def launch() -> None:
            again = _tensors(func(*args, **given))
            for old, new in zip(results, again, strict=True):
                if any(old is tensor for tensor in kept):
                    assert old.shape == new.shape, f"{func} gave another shape"
                    old.copy_(new)

        self._tape.launches.append(launch)
        return found


def _refuse_waiting(func: Any, args: Sequence[Any]) -> None:
    masks = func in {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default} and any(
        index is not None and index.dtype == torch.bool for index in args[1]
    )
    if func in WAITING or masks:
        raise HostWaited(str(func))


def _tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [tensor for part in found for tensor in _tensors(part)]
    return []


@dataclass(frozen=True, slots=True)
class TapeRecorder:
    """Records on the CPU. `late` is how many steps the host learns late that a canvas is finished."""

    tape: Tape
    late: int = 0

    def record(self, nodes: Sequence[Node], state: LoopState) -> Recording:
        for node in nodes:
            node.run()  # libraries and kernels set themselves up
        self.tape.launches = []
        self.tape.recording = True
        with _Operators(self.tape):
            for node in nodes:
                node.run()
        self.tape.recording = False
        return TapedStep(tuple(self.tape.launches), state, self.late)


@dataclass(frozen=True, slots=True)
class TapedStep:
    launches: tuple[Callable[[], None], ...]
    state: LoopState
    late: int

    def run(self, most: int, interrupted: Interrupted) -> None:
        stopped = 0
        for _ in range(most):
            if bool(self.state.going):
                for launch in self.launches:
                    launch()
            stopped += not bool(self.state.going)
            if stopped > self.late or interrupted():
                return


@contextmanager
def kernels_for(tape: Tape, patch: pytest.MonkeyPatch) -> Generator[None]:
    """Steps take the ways they take on a GPU. The kernels' definitions stand in for Triton's launches:
    like those they read their tensors when they are launched."""

    def ragged(
        rows: Sequence[AttentionRow], page_size: int, device: torch.device, *, fixed: bool
    ) -> AttentionLayout:
        return AttentionLayout((), ragged_rows(rows, page_size, device))

    with patch.context() as patched:
        patched.setattr(batch, "attention_layout", ragged)
        patched.setattr(row_stats, "has_triton", _has_triton)
        patched.setattr(attention_triton, "ragged_attention", tape.launched(_attention))
        patched.setattr(head_triton, "tiled_row_stats", tape.launched(_row_stats))
        yield


def _has_triton(_tensor: Tensor) -> bool:
    return True


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_store: Tensor,
    v_store: Tensor,
    rows: RaggedRows,
    scale: float,
    out: Tensor,
) -> None:
    seen = laid_out_rows(rows)
    out.copy_(reference_canvas_attention(q, k, v, k_store, v_store, seen, rows.page_size, scale))


def _row_stats(
    hidden: Tensor,
    head: Head,
    temperature: Tensor | None,
    draw: Draw | None,
    active: Tensor | None,
    out: RowStats,
) -> None:
    found = reference_row_stats(hidden, head, temperature, draw)
    for column, values in zip(out.columns(), found.columns(), strict=True):
        column.copy_(values if active is None else torch.where(active, values, column))
