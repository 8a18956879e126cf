"""How many slots and pages a replica gets, decided before anything is allocated."""

from dataclasses import dataclass

import psutil
import torch

from easel.scheduler.messages import ReplicaShape
from easel.worker.errors import NotEnoughMemory
from easel.worker.footprint import Footprint

CPU_SLOTS, CPU_PAGES = 16, 1024  # unless asked for otherwise; a CPU is busy long before its memory is full
PREFIX_TOKENS = 4096  # that pages are provided for, for each slot, where slots are chosen
RESERVE = 0.1  # of a device's memory: libraries' own, fragments, and what other programs come to need


@dataclass(frozen=True, slots=True)
class Allocation:
    """A replica's shape, and the bytes it comes to."""

    shape: ReplicaShape
    parts: dict[str, int]  # bytes
    memory: int  # bytes that were to be had

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def allocate(footprint: Footprint, memory: int, *, choose: bool) -> Allocation:
    """Slots and pages within `memory` bytes; a number that the configuration gives is kept.

    With `choose` what is not given becomes as large as fits, otherwise the CPU's default if that
    fits. Raises NotEnoughMemory.
    """
    slots, pages = footprint.config.slots, footprint.config.pages
    if not choose:
        usual = slots or CPU_SLOTS, pages or CPU_PAGES
        if (slots and pages) or footprint.total(*usual) <= memory:
            slots, pages = usual
    if slots is None or pages is None:
        prefix = min(PREFIX_TOKENS, footprint.sketch.info.max_model_tokens)
        found = footprint.fit(memory, slots, pages, prefix)
        slots, pages = found if found[0] else (slots or 1, pages or -(-prefix // footprint.page_size))
    parts = footprint.parts(slots, pages)
    if sum(parts.values()) > memory:
        raise NotEnoughMemory(parts, memory, _advice(parts, memory))
    return Allocation(footprint.shape(slots, pages), parts, memory)


def allocation(footprint: Footprint, device: torch.device) -> Allocation:
    """What a replica on this machine's `device` gets. Raises NotEnoughMemory."""
    memory = footprint.config.memory
    choose = memory is not None or device.type == "cuda"
    return allocate(footprint, usable_memory(device) if memory is None else memory, choose=choose)


def usable_memory(device: torch.device) -> int:
    """Bytes that are free now, less the reserve."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(free, total * (1.0 - RESERVE)))
    return int(psutil.virtual_memory().available * (1.0 - RESERVE))


def _advice(parts: dict[str, int], memory: int) -> str:
    if parts["weights"] >= memory:
        return "the weights alone do not fit: take a device with more memory, or a smaller model"
    return "set engine.slots or engine.pages lower, or engine.memory higher if the device has more"
