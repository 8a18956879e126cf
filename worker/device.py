"""What this machine computes well: the CPU's features and the dtype that suits them."""

import os
from pathlib import Path

import torch

from easel.worker.errors import WorkerError

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # "bf16" is Arm's


def cpu_features(cpu_info: Path = CPU_INFO) -> frozenset[str]:
    """Instruction-set flags of the first core; empty where the system does not list them."""
    if not cpu_info.exists():
        return frozenset()
    for line in cpu_info.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def choose_device(name: str) -> torch.device:
    """The device named, or for "auto" the first GPU, or else the CPU."""
    known = ("auto", "cpu", "cuda")
    if name not in known:
        raise WorkerError(f"device is {name!r}; it must be one of {', '.join(known)}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise WorkerError("device is 'cuda' and torch sees no GPU here; set it to cpu or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device, features: frozenset[str]) -> torch.dtype:
    """The dtype named, or for "auto" bfloat16 where the hardware multiplies it natively.

    Without such instructions a CPU emulates bfloat16 many times slower than float32.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name in known:
        return known[name]
    if name != "auto":
        raise WorkerError(f"dtype is {name!r}; it must be one of auto, {', '.join(known)}.")
    native = device.type == "cuda" or bool(features & BFLOAT16_FEATURES)
    return torch.bfloat16 if native else torch.float32
