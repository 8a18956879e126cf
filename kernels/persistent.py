"""Whole blocks in one launch: each program denoises one canvas, step after step, until it is done.

For models whose weights fit a GPU's L2. There a step's work is so small that launching it costs more
than doing it; here a step launches nothing, and a canvas waits for no other one. A step has five stages:

1. denoise: hidden states of the canvas, over its prefix's pages and itself
2. confidence: the head's choice at each open position, its probability, and the entropy
3. verify: which positions the commit rule accepts; the others are drawn again in the next step
4. commit: tokens and decisions to the registers
5. state: whether the canvas is done

`persistent_stages` has them as plain functions, `persistent_triton` as one kernel. Not covered are top-k
and top-p cuts, editing of decided tokens, experts, biases, and partial steps: each step computes all of a
canvas.
"""

from enum import Enum

import torch
from torch import Tensor

from easel.kernels.canvas_state import CanvasState, Real, Whole
from easel.kernels.persistent_layout import (
    PersistentControl,
    PersistentLayer,
    PersistentOutcome,
    PersistentPages,
    PersistentScratch,
    PersistentTask,
    PersistentTrace,
    PersistentWeights,
)
from easel.kernels.persistent_stages import run_stages
from easel.kernels.row_stats import has_triton

__all__ = [
    "Executor",
    "PersistentControl",
    "PersistentLayer",
    "PersistentOutcome",
    "PersistentPages",
    "PersistentScratch",
    "PersistentTask",
    "PersistentTrace",
    "PersistentWeights",
    "run_persistent",
]


class Executor(Enum):
    """Who runs the stages."""

    CHOSEN = "Triton where there is a GPU, torch elsewhere"
    TORCH = "torch, a canvas at a time"
    TRITON = "Triton; without a GPU in its interpreter"


def run_persistent(
    task: PersistentTask,
    *,
    outcome: PersistentOutcome | None = None,
    trace: PersistentTrace | None = None,
    scratch: PersistentScratch | None = None,
    executor: Executor = Executor.CHOSEN,
) -> PersistentOutcome:
    """Let every active canvas take up to `max_steps` steps; the others' registers stay, bit for bit.

    | tensor               | shape                                 | dtype                              |
    |----------------------|---------------------------------------|------------------------------------|
    | weights              | see PersistentWeights                 | float32 or bfloat16; all the same  |
    | pages.keys, .values  | [layers, store tokens, kv_heads, d]   | that of the weights                |
    | pages.table          | [slots, pages]                        | int32                              |
    | pages.prefix         | [slots]                               | int32                              |
    | state                | see CanvasState                       | its own                            |
    | control              | [1] each                              | int32                              |
    | eos_token_ids        | [k]                                   | int64                              |
    | outcome.steps        | [slots]                               | int32                              |

    Nothing waits for the device. The flag `control.shutdown` is looked at before every step; the last
    program to end raises it, so a host that polls it knows that all have. Lower it before the next launch.
    `state.live` is left alone: it is of partial steps.
    A canvas that was stopped, or ran out of steps, goes on in a later launch as if nothing had been.
    Tensors are dense. Raises ValueError for shapes and dtypes that do not fit, and for what is not covered.
    """
    check_task(task)
    if outcome is None:
        steps = torch.zeros(task.slots, dtype=torch.int32, device=task.state.tokens.device)
        outcome = PersistentOutcome(task.state, steps)
    _expect("outcome.steps", outcome.steps, (task.slots,), torch.int32)
    if trace is not None:
        _check_trace(task, trace)
    if executor is Executor.TRITON or (executor is Executor.CHOSEN and has_triton(task.state.tokens)):
        # Imported here: triton is only where there is a GPU.
        from easel.kernels.persistent_triton import launch  # noqa: PLC0415

        launch(task, outcome, trace, scratch or PersistentScratch.allocate(task))
    else:
        run_stages(task, outcome, trace)
    return outcome


def check_task(task: PersistentTask) -> None:
    """Raises ValueError for what does not fit together or is not covered."""
    if task.traits.cut:
        raise ValueError("persistent: top-k and top-p cuts are not covered, and traits.cut is true")
    if task.traits.edits:
        raise ValueError("persistent: edits are not covered, and traits.edits is true")
    if task.traits.partial:
        raise ValueError("persistent: partial steps are not covered, and traits.partial is true")
    if task.max_steps < 1:
        raise ValueError(f"persistent: max_steps is {task.max_steps}, and must be at least 1")
    _check_weights(task.weights)
    _check_pages(task)
    _check_state(task.state)
    if not 0 <= task.mask_token_id < len(task.weights.head):
        raise ValueError(f"persistent: mask {task.mask_token_id} of {len(task.weights.head)} tokens")
    _expect("eos_token_ids", task.eos_token_ids, (len(task.eos_token_ids),), torch.int64)
    _expect("control.shutdown", task.control.shutdown, (1,), torch.int32)
    _expect("control.finished", task.control.finished, (1,), torch.int32)


def _check_weights(weights: PersistentWeights) -> None:
    if weights.qkv.ndim != 3 or weights.qk_norm.ndim != 3 or weights.down.ndim != 3 or weights.out.ndim != 3:
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors().items()}
        raise ValueError(f"persistent: layers' tensors are stacked matrices, got {shapes}")
    layers, h, dim, inner = weights.layers, weights.hidden, weights.dim, weights.inner
    heads, kv_heads, vocabulary = weights.heads, weights.kv_heads, len(weights.embedding)
    if dim % 2 or kv_heads < 1 or heads < 1 or heads % kv_heads:
        raise ValueError(f"persistent: {heads} heads, {kv_heads} key heads, {dim} dims do not go together")
    shapes = {
        "embedding": (vocabulary, h),
        "input_norm": (layers, h),
        "qkv": (layers, (heads + 2 * kv_heads) * dim, h),
        "qk_norm": (layers, heads + kv_heads, dim),
        "out": (layers, h, heads * dim),
        "mlp_norm": (layers, h),
        "gate_up": (layers, 2 * inner, h),
        "down": (layers, h, inner),
        "final_norm": (h,),
        "head": (vocabulary, h),
    }
    dtype = weights.embedding.dtype
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"persistent: weights are float32 or bfloat16, not {dtype}")
    for name, tensor in weights.tensors().items():
        if name == "frequencies":
            _expect(name, tensor, (dim // 2,), torch.float32)
        else:
            _expect(name, tensor, shapes[name], dtype)


def _check_pages(task: PersistentTask) -> None:
    weights, pages, slots = task.weights, task.pages, task.slots
    store = (weights.layers, *pages.keys.shape[1:2], weights.kv_heads, weights.dim)
    for name, tensor in (("pages.keys", pages.keys), ("pages.values", pages.values)):
        _expect(name, tensor, store, weights.embedding.dtype)
    _expect("pages.table", pages.table, (slots, *pages.table.shape[1:2]), torch.int32)
    _expect("pages.prefix", pages.prefix, (slots,), torch.int32)
    if pages.page_size < 1:
        raise ValueError(f"persistent: a page of {pages.page_size} tokens")


def _check_state(state: CanvasState) -> None:
    slots, block = state.tokens.shape
    dtypes = {
        "tokens": torch.int64,
        "decided": torch.bool,
        "predicted": torch.int64,
        "confidence": torch.float32,
        "live": torch.bool,
        "quotas": torch.int64,
    }
    for name, tensor in state.tensors().items():
        if name in dtypes:
            _expect(name, tensor, (slots, block), dtypes[name])
    _expect("integers", state.integers, (slots, len(Whole)), torch.int64)
    _expect("numbers", state.numbers, (slots, len(Real)), torch.float32)


def _check_trace(task: PersistentTask, trace: PersistentTrace) -> None:
    for name, tensor in PersistentTrace.allocate(task).tensors().items():
        _expect(f"trace.{name}", trace.tensors()[name], tuple(tensor.shape), tensor.dtype)


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or not tensor.is_contiguous():
        raise ValueError(
            f"persistent: {name} must be {shape} {dtype} and dense; it is {tuple(tensor.shape)} "
            f"{tensor.dtype} with strides {tensor.stride()}"
        )
