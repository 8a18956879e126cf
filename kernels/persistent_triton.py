# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""Steps of all canvases in one Triton launch: a program a canvas, looping over steps by itself.

No program waits for another. Each looks at the shutdown flag before a step; the last to end raises it.
The definition is `persistent_stages`.
"""

import torch
import triton
import triton.language as tl

from easel.kernels.persistent_commit_triton import ACTIVE, WHOLES, State, Trace, decide
from easel.kernels.persistent_layers_triton import Pages, Scratch, Sizes, Weights, denoise, write_angles
from easel.kernels.persistent_layout import (
    PersistentOutcome,
    PersistentScratch,
    PersistentTask,
    PersistentTrace,
)

WARPS = 8  # of a program


def launch(
    task: PersistentTask,
    outcome: PersistentOutcome,
    trace: PersistentTrace | None,
    scratch: PersistentScratch,
) -> None:
    """What `run_persistent` promises, of a task that it has checked."""
    if not task.slots:
        task.control.shutdown.fill_(1)
        return
    sizes = sizes_of(task, traced=trace is not None, on_gpu=task.state.tokens.is_cuda)
    options = launch_options(task.weights.embedding.dtype)
    run_canvas[(task.slots,)](*tensors_of(task, outcome, trace, scratch), sizes, **options)


def tensors_of(
    task: PersistentTask,
    outcome: PersistentOutcome,
    trace: PersistentTrace | None,
    scratch: PersistentScratch,
) -> tuple[object, ...]:
    """The kernel's arguments before its sizes."""
    pages, control, eos = task.pages, task.control, task.eos_token_ids
    traced = (scratch.residual,) * len(Trace._fields) if trace is None else trace.tensors().values()
    return (
        Weights(*task.weights.tensors().values()),
        State(*task.state.tensors().values()),
        Pages(pages.keys, pages.values, pages.table, pages.prefix),
        Scratch(*scratch.tensors()),
        Trace(*traced),
        *(control.shutdown, control.finished, outcome.steps, eos),
        *(len(eos), task.mask_token_id, task.max_steps),
        *(pages.keys.shape[1], pages.table.shape[1]),
    )


def sizes_of(task: PersistentTask, *, traced: bool, on_gpu: bool) -> Sizes:
    """The kernel's compile-time numbers."""
    weights = task.weights
    pairs = triton.next_power_of_2(weights.dim // 2)
    tile = tile_shape(weights.embedding.dtype, on_gpu=on_gpu)
    numbers = tile | {
        "slots": task.slots,
        "block": task.state.block_length,
        "rows": max(16, triton.next_power_of_2(task.state.block_length)),
        "layers": weights.layers,
        "hidden": weights.hidden,
        "wide": triton.next_power_of_2(weights.hidden),
        "heads": weights.heads,
        "kv_heads": weights.kv_heads,
        "dim": weights.dim,
        "dims": max(16, triton.next_power_of_2(weights.dim)),
        "pairs": pairs,
        "inner": weights.inner,
        "vocabulary": len(weights.head),
        "page_size": task.pages.page_size,
        "columns": max(tile["columns"], pairs),
        "epsilon": weights.epsilon,
        "widen": not on_gpu,
        "threads": 32 * WARPS,
        "traced": traced,
    }
    return Sizes(**{name: tl.constexpr(value) for name, value in numbers.items()})


def tile_shape(dtype: torch.dtype, *, on_gpu: bool) -> dict[str, int]:
    """Sizes of tiles. A canvas has few rows, so tiles of weights are large: a program waits for each one."""
    if not on_gpu:
        return {"columns": 16, "depth": 16, "members": 16, "keys": 16}
    if dtype == torch.float32:
        return {"columns": 128, "depth": 64, "members": 32, "keys": 32}
    return {"columns": 128, "depth": 128, "members": 64, "keys": 64}


def launch_options(dtype: torch.dtype) -> dict[str, int | bool]:
    # Fused multiplication and addition is the usual choice; triton 3.9 warns where it is not said.
    stages = 2 if dtype == torch.float32 else 3
    return {"num_warps": WARPS, "num_stages": stages, "enable_fp_fusion": True}


# Compiled once, not again where a number is 1 or a multiple of 16.
@triton.jit(do_not_specialize=("eos_count", "mask_token", "max_steps", "tokens_stored", "page_count"))
def run_canvas(
    weights, state, pages, scratch, trace, shutdown, finished, steps, eos_token_ids,
    eos_count, mask_token, max_steps, tokens_stored, page_count, sizes,
):  # fmt: skip
    """The canvas of slot `program_id(0)`, until it is done, out of steps, or stopped."""
    slot = tl.program_id(0)
    if tl.load(state.integers + slot * WHOLES + ACTIVE) > 0:
        place = tl.arange(0, sizes.rows)
        row, there = slot * sizes.block + place, place < sizes.block
        write_angles(slot, row, there, weights.frequencies, pages.prefix, scratch, sizes)
        taken = 0
        going = _may_go_on(shutdown, sizes)
        while going:
            traced = taken * sizes.slots + slot  # where this step's row of the trace is
            layers = trace.layers + traced.to(tl.int64) * (sizes.layers * sizes.block * sizes.hidden)
            denoise(
                slot, row, there, state.tokens, weights, pages, tokens_stored, page_count,
                scratch, layers, sizes,
            )  # fmt: skip
            done = decide(
                slot, row, there, traced, weights.head, state, scratch.normed, trace,
                eos_token_ids, eos_count, mask_token, sizes,
            )  # fmt: skip
            taken += 1
            going = (taken < max_steps) & (done == 0) & _may_go_on(shutdown, sizes)
        tl.store(steps + slot, taken)
    _leave(shutdown, finished)


@triton.jit
def _may_go_on(shutdown, sizes):
    """Whether the flag is down, the same for all threads: each reads it, and it may rise in between."""
    everyone = tl.zeros((sizes.threads,), tl.int32)
    return tl.max(tl.load(shutdown + everyone, volatile=True), 0) == 0


@triton.jit
def _leave(shutdown, finished):
    """Count a program that has ended; the last one raises the flag, and leaves the count as it was found."""
    tl.debug_barrier()  # all the program has written is written
    if tl.atomic_add(finished, 1, sem="acq_rel", scope="sys") == tl.num_programs(0) - 1:
        tl.store(finished, 0)
        tl.atomic_xchg(shutdown, 1, sem="release", scope="sys")
