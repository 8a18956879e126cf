"""What devices can do at best: arithmetic, memory traffic and memory, for estimates made elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from easel.worker.errors import UnknownName

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Device:
    """The three numbers that bound any forward."""

    name: str
    flops: float  # per second, dense bfloat16 products summed in float32
    bandwidth: float  # bytes per second between memory and arithmetic
    memory: int  # bytes a process can have
    source: str

    @property
    def balance(self) -> float:
        """Floating-point operations per byte at which arithmetic and memory take equally long."""
        return self.flops / self.bandwidth


_MEASURED = "measured: device-to-device copy and a bfloat16 matrix product"
_DATA_SHEET = "data sheet: peak memory bandwidth and dense bfloat16 tensor rate"

# Memory is what the driver leaves to a process, rounded down to whole GiB.
DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device("H200", 790e12, 4.3e12, 139 * GIB, _MEASURED),
        Device("H100", 989e12, 3.35e12, 79 * GIB, f"{_DATA_SHEET} (SXM, 80 GB)"),
        Device("A100", 312e12, 2.039e12, 79 * GIB, f"{_DATA_SHEET} (SXM, 80 GB)"),
        Device("L40S", 362e12, 0.864e12, 44 * GIB, _DATA_SHEET),
    )
}


def known_device(name: str) -> Device:
    """The device of that name, whatever its case. Raises UnknownName."""
    found = DEVICES.get(name.upper())
    if found is None:
        near = get_close_matches(name.upper(), DEVICES, 1)
        raise UnknownName("device", name, tuple(DEVICES), near[0] if near else None)
    return found
