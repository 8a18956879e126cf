"""Runs a plan: rows to tensors, one forward, one denoising step of every canvas in it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from easel.scheduler.messages import BatchPlan, CanvasResult, CanvasSnapshot, Row, StepResult
from easel.worker.batch import build_batch
from easel.worker.denoise import Denoiser, Outcome
from easel.worker.kv_cache import KVCache
from easel.worker.models.backbone import Backbone
from easel.worker.pieces import Geometry
from easel.worker.registers import CanvasRegisters


@dataclass(slots=True)
class Runner:
    """Owns the device's state; knows nothing of queues or requests."""

    model: Backbone
    cache: KVCache
    registers: CanvasRegisters
    denoiser: Denoiser
    geometry: Geometry
    clock: Callable[[], float]  # seconds, monotonic

    @torch.inference_mode()
    def run(self, plan: BatchPlan) -> StepResult:
        """One forward. Canvases are opened before it; results follow the plan's canvas rows."""
        started = self.clock()
        for row in plan.rows:
            if row.canvas is not None:
                self.registers.open(row.slot, row.canvas)
                self.denoiser.open(row.slot, row.canvas)
        batch = build_batch(plan, self.registers, self.geometry, self.registers.tokens.device)
        hidden = self.model.forward(batch, self.cache, self.denoiser.conditioning(batch.slots))
        canvas_rows = [row for row in plan.rows if not row.kind.writes_pages]
        if not canvas_rows:
            return StepResult((), self.clock() - started)
        slots = [row.slot for row in canvas_rows]
        outcome = self.denoiser.step(slots, hidden[batch.canvases])
        canvases = self._results(canvas_rows, outcome)
        watched = [row for row in canvas_rows if self.registers.watched[row.slot]]
        snapshots = tuple(self._snapshot(row) for row in watched)
        return StepResult(canvases, self.clock() - started, snapshots)

    def _results(self, rows: list[Row], outcome: Outcome) -> tuple[CanvasResult, ...]:
        done: list[bool] = outcome.done.tolist()
        undecided: list[int] = outcome.undecided.tolist()
        entropy: list[float] = outcome.mean_entropy.tolist()
        live: list[int] = outcome.live.tolist()
        steps: list[int] = self.registers.step[[row.slot for row in rows]].tolist()
        return tuple(
            CanvasResult(
                request_id=row.request_id,
                slot=row.slot,
                done=done[i],
                step=steps[i],
                undecided=undecided[i],
                mean_entropy=entropy[i],
                tokens=self._block(row.slot) if done[i] else (),
                live=live[i],
            )
            for i, row in enumerate(rows)
        )

    def _block(self, slot: int) -> tuple[int, ...]:
        tokens: list[int] = self.registers.tokens[slot].tolist()
        return tuple(tokens)

    def _snapshot(self, row: Row) -> CanvasSnapshot:
        registers, slot = self.registers, row.slot
        predicted: list[int] = registers.predicted[slot].tolist()
        decided: list[bool] = registers.decided[slot].tolist()
        confidence: list[float] = registers.confidence[slot].tolist()
        return CanvasSnapshot(
            request_id=row.request_id,
            block_index=int(registers.block_index[slot]),
            step=int(registers.step[slot]),
            tokens=tuple(predicted),
            decided=tuple(decided),
            confidence=tuple(confidence),
            first=int(registers.first[slot]),
        )
