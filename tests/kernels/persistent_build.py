"""Compiles the persistent kernel for the demo model's sizes and a GPU that need not be here.

Run as a program, in a process where Triton does not interpret; prints what a program takes of its SM.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from easel.kernels.canvas_state import CanvasState
from easel.kernels.commit import StepTraits
from easel.kernels.persistent import (
    PersistentControl,
    PersistentOutcome,
    PersistentPages,
    PersistentScratch,
    PersistentTask,
    PersistentWeights,
)
from easel.kernels.persistent_triton import launch_options, run_canvas, sizes_of, tensors_of

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.bool: "*i1",
}
CPU = torch.device("cpu")


def demo_task(dtype: torch.dtype) -> PersistentTask:
    """Of the demo model's sizes: all zeros."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    weights = PersistentWeights(
        embedding=zeros(103, 128),
        input_norm=zeros(6, 128),
        qkv=zeros(6, 16 * 32, 128),
        qk_norm=zeros(6, 12, 32),
        out=zeros(6, 128, 8 * 32),
        mlp_norm=zeros(6, 128),
        gate_up=zeros(6, 2 * 384, 128),
        down=zeros(6, 128, 384),
        final_norm=zeros(128),
        head=zeros(103, 128),
        frequencies=torch.zeros(16),
        epsilon=1e-6,
    )
    store, one = zeros(6, 64, 4, 32), torch.zeros(1, dtype=torch.int32)
    return PersistentTask(
        weights=weights,
        state=CanvasState.allocate(1, 32, CPU),
        pages=PersistentPages(store, store, one[None], one, page_size=32),
        control=PersistentControl(one, one),
        traits=StepTraits(frozenset()),
        eos_token_ids=one.long(),
        mask_token_id=0,
        max_steps=32,
    )


def built(dtype: torch.dtype) -> Any:
    """The kernel as it runs on an H100 or H200."""
    task = demo_task(dtype)
    outcome = PersistentOutcome(task.state, torch.zeros(1, dtype=torch.int32))
    sizes = sizes_of(task, traced=False, on_gpu=True)
    given = (*tensors_of(task, outcome, None, PersistentScratch.allocate(task)), sizes)
    signature = dict(zip(run_canvas.arg_names, map(kind_of, given), strict=True))
    fixed = {(len(given) - 1, index): size.value for index, size in enumerate(sizes)}
    source = ASTSource(run_canvas, signature, fixed, aligned(signature))
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=launch_options(dtype))


def kind_of(value: Any) -> Any:
    """What Triton calls the type of an argument."""
    if isinstance(value, tuple):
        return type(value)(*map(kind_of, value))  # a named tuple keeps its names
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return "i32" if isinstance(value, int) else "constexpr"


def aligned(signature: Mapping[str, Any]) -> dict[tuple[int, ...], list[list[object]]]:
    """Every pointer begins at a multiple of 16 bytes, as torch allocates."""
    places: list[tuple[int, ...]] = []
    for at, kind in enumerate(signature.values()):
        if isinstance(kind, tuple):
            places.extend((at, index) for index, part in enumerate(kind) if part[0] == "*")
        elif kind[0] == "*":
            places.append((at,))
    return {place: [["tt.divisibility", 16]] for place in places}


def used(kernel: Any) -> dict[str, int]:
    """Registers and bytes of stack of a thread, bytes of shared memory of a program."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = {"shared": kernel.metadata.shared}
    for part in (told.stdout + told.stderr).split():
        name, _, count = part.partition(":")
        if name in ("REG", "STACK"):
            found[name] = int(count)
    return found


if __name__ == "__main__":
    print(json.dumps(used(built(torch.float32 if "float32" in sys.argv else torch.bfloat16))))
