"""Training processes that share one model: each has one thread and its own part of the batch.

They meet once a step, to average their gradients. On a machine that others use too this
wastes less than one process with many threads, which meet in every matrix product.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

Options = TypeVar("Options")


@dataclass(frozen=True, slots=True)
class Workers:
    """One process's view of the group; rank 0 saves, evaluates and reports."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def average_gradients(self, params: Iterable[nn.Parameter], stop: bool) -> bool:
        """Replaces each gradient by the group's mean; true in all if any of them asks to stop."""
        if self.size == 1:
            return stop
        gradients = [param.grad for param in params if param.grad is not None]
        flat = torch.cat([torch.tensor([float(stop)]), *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        parts = (flat[1:] / self.size).split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, parts, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return bool(flat[0] > 0)


def run_together(size: int, work: Callable[[Workers, Options], None], options: Options) -> None:
    """Calls `work` in `size` processes, this one being rank 0; returns when rank 0 is done."""
    if size == 1:
        work(Workers(), options)
        return
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = Path(folder, "rendezvous")
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(target=_join, args=(rank, size, rendezvous, work, options), daemon=True)
            for rank in range(1, size)
        ]
        for process in others:
            process.start()
        _join(0, size, rendezvous, work, options)
        for process in others:
            process.join()


def _join(
    rank: int, size: int, rendezvous: Path, work: Callable[[Workers, Options], None], options: Options
) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    try:
        work(Workers(rank, size), options)
    finally:
        dist.destroy_process_group()
