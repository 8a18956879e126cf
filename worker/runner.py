"""Runs a plan: rows to tensors, then forwards and denoising steps of every canvas in it."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import is_

import torch

from easel.kernels.canvas_state import Real, Whole
from easel.scheduler.messages import BatchPlan, CanvasResult, CanvasSnapshot, Row, StepResult
from easel.worker.batch import build_batch
from easel.worker.host_loop import Interrupted, StepLoop, never
from easel.worker.pieces import Geometry
from easel.worker.registers import NOTHING_YET
from easel.worker.step_program import Machine, StepProgram


@dataclass(slots=True)
class Runner:
    """Owns the device's state; knows nothing of queues or requests."""

    machine: Machine
    geometry: Geometry
    loop: StepLoop
    clock: Callable[[], float]  # seconds, monotonic
    _last: tuple[tuple[Row, ...], StepProgram] | None = None  # a program that may come again

    @torch.inference_mode()
    def run(self, plan: BatchPlan, interrupted: Interrupted = never) -> StepResult:
        """Up to `plan.steps` forwards. Canvases are opened before them; results follow the plan's rows."""
        started, machine = self.clock(), self.machine
        opened = [(row.slot, row.canvas) for row in plan.rows if row.canvas is not None]
        if opened:
            machine.registers.open_all(opened)
        for slot, spec in opened:
            machine.denoiser.open(slot, spec)
        program = self._program(plan)
        steps = self.loop.run(program, plan.steps, interrupted)
        rows = [row for row in plan.rows if not row.kind.writes_pages]
        if not rows:
            return StepResult((), self.clock() - started, steps=steps)
        canvases = self._results(rows, program)
        snapshots = tuple(self._snapshot(row) for row in rows if machine.registers.watched[row.slot])
        return StepResult(canvases, self.clock() - started, snapshots, steps)

    def _program(self, plan: BatchPlan) -> StepProgram:
        """The plan laid out, or the program of the last plan if that had the same rows."""
        rows, last = plan.rows, self._last
        if last is not None and len(last[0]) == len(rows) and all(map(is_, last[0], rows)):
            return last[1]
        registers = self.machine.registers
        slots = [row.slot for row in rows if not row.kind.writes_pages]
        batch = build_batch(plan, registers, self.geometry, registers.device)
        traits = registers.traits_of(slots) if slots else NOTHING_YET
        program = StepProgram(self.machine, batch, traits)
        comes_again = all(row.canvas is None and not row.partial for row in rows)
        self._last = (rows, program) if comes_again else None
        return program

    def _results(self, rows: list[Row], program: StepProgram) -> tuple[CanvasResult, ...]:
        state, at = self.machine.registers.state, program.batch.slots
        integers: list[list[int]] = state.integers.index_select(0, at).tolist()
        numbers: list[list[float]] = state.numbers.index_select(0, at).tolist()
        blocks = self._blocks(
            [row.slot for row, of in zip(rows, integers, strict=True) if not of[Whole.ACTIVE]]
        )
        return tuple(
            CanvasResult(
                request_id=row.request_id,
                slot=row.slot,
                done=not whole[Whole.ACTIVE],
                step=whole[Whole.STEP],
                undecided=whole[Whole.UNDECIDED],
                mean_entropy=real[Real.MEAN_ENTROPY],
                tokens=blocks.get(row.slot, ()),
                live=whole[Whole.LIVE],
                entropy_sum=real[Real.ENTROPY_SUM],
            )
            for row, whole, real in zip(rows, integers, numbers, strict=True)
        )

    def _blocks(self, slots: list[int]) -> dict[int, tuple[int, ...]]:
        """The tokens of finished canvases."""
        if not slots:
            return {}
        tokens: list[list[int]] = self.machine.registers.state.tokens[slots].tolist()
        return {slot: tuple(block) for slot, block in zip(slots, tokens, strict=True)}

    def _snapshot(self, row: Row) -> CanvasSnapshot:
        state, slot = self.machine.registers.state, row.slot
        integers: list[int] = state.integers[slot].tolist()
        predicted: list[int] = state.predicted[slot].tolist()
        decided: list[bool] = state.decided[slot].tolist()
        confidence: list[float] = state.confidence[slot].tolist()
        return CanvasSnapshot(
            request_id=row.request_id,
            block_index=integers[Whole.BLOCK_INDEX],
            step=integers[Whole.STEP],
            tokens=tuple(predicted),
            decided=tuple(decided),
            confidence=tuple(confidence),
            first=integers[Whole.FIRST],
        )
