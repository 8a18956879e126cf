"""Errors of the worker. All carry the offending values.

WorkerError
├── CheckpointError            the model directory cannot be used
│   ├── MissingFile
│   ├── UnsupportedArchitecture
│   ├── UnsupportedQuantisation
│   ├── UnsafeCheckpoint       pickle weights
│   ├── UnreadableWeights      not a safetensors file, or a damaged one
│   └── TensorMismatch         missing, extra or mis-shaped tensor
├── NotEnoughMemory            weights and state do not fit the device; nothing was allocated
├── UnknownName                no such preset or device
└── EngineStopped              the step loop has ended; the replica must be replaced
"""

from collections.abc import Mapping, Sequence
from pathlib import Path


class WorkerError(Exception):
    """Root of the worker's errors."""


class CheckpointError(WorkerError):
    """The model directory cannot be used as it is."""


class MissingFile(CheckpointError):
    """A file every checkpoint needs is not there."""

    def __init__(self, path: Path, purpose: str) -> None:
        super().__init__(f"{path} is missing: {purpose}. Point Easel at a complete Hugging Face directory.")
        self.path = path
        self.purpose = purpose


class UnsupportedArchitecture(CheckpointError):
    """The checkpoint's architecture has no implementation here."""

    def __init__(self, architecture: str, supported: Sequence[str]) -> None:
        super().__init__(
            f"architecture {architecture!r} is not supported; supported: {', '.join(supported)}."
        )
        self.architecture = architecture
        self.supported = tuple(supported)


class UnsupportedQuantisation(CheckpointError):
    """The checkpoint's matrices are stored in a way that is not read here."""

    def __init__(self, field: str, value: object) -> None:
        super().__init__(
            f"config.json: quantization_config has {field}={value!r}, which is not supported. Take the model "
            "in bfloat16, which engine.quantise=fp8 quantises, or in FP8 (e4m3) with scales for channels or "
            "for blocks of 128 x 128 and with dynamic activations."
        )
        self.field = field
        self.value = value

    def __reduce__(self) -> tuple[type["UnsupportedQuantisation"], tuple[str, object]]:
        return type(self), (self.field, self.value)


class UnsafeCheckpoint(CheckpointError):
    """Pickle weights can run code when loaded, so they are refused."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is a pickle, which can run code when loaded; convert it to safetensors.")
        self.path = path


class UnreadableWeights(CheckpointError):
    """A weights file is not safetensors, or was cut short."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} cannot be read as safetensors ({problem}); download or convert it again.")
        self.path = path
        self.problem = problem


class TensorMismatch(CheckpointError):
    """A tensor is missing, unexpected, or of another shape than the configuration implies."""

    def __init__(self, name: str, expected: str, found: str) -> None:
        super().__init__(
            f"tensor {name!r}: expected {expected}, found {found}; check config.json and the weights."
        )
        self.name = name
        self.expected = expected
        self.found = found


class NotEnoughMemory(WorkerError):
    """Weights and state would not fit the device. Raised before anything is allocated."""

    def __init__(self, parts: Mapping[str, int], available: int, advice: str) -> None:
        needed = sum(parts.values())
        listed = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in parts.items())
        super().__init__(
            f"{needed / 2**30:.2f} GiB are needed ({listed}) and {available / 2**30:.2f} GiB are to be had; "
            f"{advice}."
        )
        self.parts = dict(parts)
        self.available = available
        self.advice = advice

    def __reduce__(self) -> tuple[type["NotEnoughMemory"], tuple[dict[str, int], int, str]]:
        return type(self), (self.parts, self.available, self.advice)


class UnknownName(WorkerError):
    """Something was asked for by a name that nothing has."""

    def __init__(self, kind: str, name: str, known: Sequence[str], near: str | None = None) -> None:
        meant = f" Did you mean {near}?" if near else ""
        super().__init__(f"there is no {kind} {name!r}; there are {', '.join(known)}.{meant}")
        self.kind = kind
        self.name = name
        self.known = tuple(known)


class EngineStopped(WorkerError):
    """The step loop ended with an error; the replica has to be replaced."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the engine has stopped: {reason}. Its requests go on at another replica.")
        self.reason = reason

    def __reduce__(self) -> tuple[type["EngineStopped"], tuple[str]]:
        return type(self), (self.reason,)
