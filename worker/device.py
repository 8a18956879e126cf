"""What this machine computes well: the CPU's features and the dtype that suits them."""

import os
from pathlib import Path

import torch

from easel.kernels.linear import packs
from easel.worker.config import EngineConfig
from easel.worker.errors import WorkerError
from easel.worker.storage import Storage

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # "bf16" is Arm's
PACKING_FEATURES = frozenset({"avx512_bf16", "amx_bf16"})
FLOAT8_CAPABILITY = (9, 0)  # Hopper: the first whose products of float8 take a scale for each row


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


def choose_storage(
    config: EngineConfig, device: torch.device, dtype: torch.dtype, features: frozenset[str]
) -> Storage:
    """How matrices lie in the device's memory. Raises WorkerError for a setting that cannot be.

    "auto" packs where a CPU multiplies bfloat16 natively: there oneDNN would bring a matrix into its
    own order at every product. In float32 the plain product reads matrices as they are; packing them
    gains a twentieth where they are wide, and loses more where they are small.
    """
    _refuse_unless("quantise", config.quantise, ("none", "fp8"))
    _refuse_unless("pack_weights", config.pack_weights, ("auto", "always", "never"))
    can_pack = device.type == "cpu" and packs(dtype)
    pays = dtype == torch.bfloat16 and bool(features & PACKING_FEATURES)
    if config.pack_weights == "always" and not can_pack:
        raise WorkerError(
            f"pack_weights is 'always', and oneDNN packs no {str(dtype).removeprefix('torch.')} for this "
            f"{device.type.upper()}; set it to auto."
        )
    packed = can_pack and (config.pack_weights == "always" or (config.pack_weights == "auto" and pays))
    return Storage(config.quantise == "fp8", multiplies_float8(device), packed)


def multiplies_float8(device: torch.device) -> bool:
    """Whether float8 weights stay as they are there."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= FLOAT8_CAPABILITY


def _refuse_unless(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise WorkerError(f"{setting} is {value!r}; it must be one of {', '.join(known)}.")
