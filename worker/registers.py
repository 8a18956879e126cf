"""Volatile state of every live canvas. Clearing a slot rewrites one row; nothing grows with load."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from easel.kernels.canvas_state import CanvasState, Real, Whole
from easel.kernels.commit import StepTraits
from easel.kernels.commit_rules import Rule
from easel.scheduler.messages import CanvasSpec
from easel.worker.schedules import step_quotas

NO_EDITS = 2.0  # no probability is above it
EDITING_PASSES = 16  # once all is decided, as LLaDA2.1 has it
NOTHING_YET = StepTraits(frozenset())


@dataclass(frozen=True, slots=True)
class CanvasRegisters:
    """One row per slot. Cleared when a block is committed."""

    state: CanvasState
    traits: list[StepTraits]  # of each slot
    watched: list[bool]  # whose canvas is reported after every step
    mask_token_id: int

    @classmethod
    def allocate(
        cls, slots: int, block_length: int, mask_token_id: int, device: torch.device
    ) -> "CanvasRegisters":
        return cls(
            state=CanvasState.allocate(slots, block_length, device),
            traits=[NOTHING_YET] * slots,
            watched=[False] * slots,
            mask_token_id=mask_token_id,
        )

    @property
    def slots(self) -> int:
        return self.state.tokens.shape[0]

    @property
    def block_length(self) -> int:
        return self.state.block_length

    @property
    def device(self) -> torch.device:
        return self.state.tokens.device

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """Start a canvas: everything undecided but the prompt's part. Nothing of the slot's past is kept."""
        self.open_all([(slot, spec)])

    def open_all(self, openings: Sequence[tuple[int, CanvasSpec]]) -> None:
        """Start canvases in slots that are all different; what is to be known of them takes two copies."""
        state, block = self.state, self.block_length
        whole = array("q")
        real = array("f")
        for slot, spec in openings:
            whole.append(slot)
            whole.extend(spec.known)
            whole.extend([self.mask_token_id] * (block - len(spec.known)))
            whole.extend(step_quotas(block, spec.diffusion.steps, spec.diffusion.schedule))
            whole.extend(_integers(spec, block))
            real.extend(_numbers(spec))
            self.traits[slot] = _traits(spec)
            self.watched[slot] = spec.snapshots
        rows = torch.frombuffer(whole, dtype=torch.int64).to(self.device).view(len(openings), -1)
        at, tokens, quotas, integers = rows.split([1, block, block, len(Whole)], dim=1)
        at, known = at.flatten(), torch.arange(block, device=self.device) < integers[:, Whole.FIRST, None]
        state.tokens.index_copy_(0, at, tokens)
        state.predicted.index_copy_(0, at, tokens)
        state.quotas.index_copy_(0, at, quotas)
        state.integers.index_copy_(0, at, integers)
        state.decided.index_copy_(0, at, known)
        state.confidence.index_copy_(0, at, known.float())
        state.live.index_fill_(0, at, True)
        numbers = torch.frombuffer(real, dtype=torch.float32).to(self.device)
        state.numbers.index_copy_(0, at, numbers.view(len(openings), -1))

    def traits_of(self, slots: Iterable[int]) -> StepTraits:
        """What a step of these slots' canvases has to do."""
        together = NOTHING_YET
        for slot in slots:
            together |= self.traits[slot]
        return together

    def live_positions(self, slots: Sequence[int]) -> dict[int, list[int]]:
        """Of each slot, the canvas offsets that a partial step computes."""
        if not slots:
            return {}
        rows: list[list[bool]] = self.state.live[list(slots)].tolist()
        return {
            slot: [offset for offset, live in enumerate(row) if live]
            for slot, row in zip(slots, rows, strict=True)
        }

    def bytes_per_slot(self) -> int:
        """What one more canvas costs, for the report at start."""
        return sum(tensor.nbytes // tensor.shape[0] for tensor in self.state.tensors().values())


def _integers(spec: CanvasSpec, block_length: int) -> list[int]:
    known = len(spec.known)
    values = {
        Whole.ACTIVE: 1,
        Whole.FIRST: known,
        Whole.LIMIT: spec.limit,
        Whole.BLOCK_INDEX: spec.block_index,
        Whole.SEED: spec.sampling.seed,
        Whole.TOP_K: spec.sampling.top_k,
        Whole.EDITS_LEFT: EDITING_PASSES,
        Whole.RULE: Rule[spec.diffusion.commit_rule.name],
        Whole.UNDECIDED: block_length - known,
        Whole.LIVE: block_length,
    }
    return [values.get(column, 0) for column in Whole]


def _numbers(spec: CanvasSpec) -> list[float]:
    diffusion, sampling = spec.diffusion, spec.sampling
    values = {
        Real.THRESHOLD: diffusion.threshold,
        Real.ENTROPY_BOUND: diffusion.entropy_bound,
        Real.STOP_ENTROPY: -1.0 if diffusion.stop_entropy is None else diffusion.stop_entropy,
        Real.TEMPERATURE: sampling.temperature,
        Real.TOP_P: sampling.top_p,
        Real.EDIT_THRESHOLD: NO_EDITS if diffusion.edit_threshold is None else diffusion.edit_threshold,
    }
    return [values.get(column, 0.0) for column in Real]


def _traits(spec: CanvasSpec) -> StepTraits:
    sampling, diffusion = spec.sampling, spec.diffusion
    sampled = sampling.temperature > 0
    return StepTraits(
        rules=frozenset({Rule[diffusion.commit_rule.name]}),
        sampled=sampled,
        cut=sampled and (sampling.top_k > 0 or sampling.top_p < 1.0),
        edits=diffusion.edit_threshold is not None,
        settles=diffusion.stop_entropy is not None,
        partial=diffusion.rebuild_every > 0,
        shown=spec.snapshots,
    )
