"""Volatile state of every live canvas. Clearing a slot rewrites one row; nothing grows with load."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from easel.scheduler.messages import CanvasSpec
from easel.scheduler.request import CommitRule
from easel.worker.schedules import step_quotas

NO_EDITS = 2.0  # no probability is above it
EDITING_PASSES = 16  # once all is decided, as LLaDA2.1 has it


@dataclass(slots=True)
class CanvasRegisters:
    """One row per slot. Cleared when a block is committed."""

    tokens: Tensor  # [slots, block]  int64    what the next step reads; undecided positions hold the mask
    decided: Tensor  # [slots, block]  bool     positions the commit rule has accepted
    predicted: Tensor  # [slots, block]  int64    the last step's choice, decided or not
    confidence: (
        Tensor  # [slots, block]  float32  probability of `predicted`; of a decided token, when accepted
    )
    live: Tensor  # [slots, block]  bool     what a partial step computes: undecided, or decided just now
    step: Tensor  # [slots]  int64  denoising steps taken on this block
    first: Tensor  # [slots]  int64  positions before it belong to the prompt
    limit: Tensor  # [slots]  int64  positions from it on lie beyond max_tokens
    block_index: Tensor  # [slots]  int64  keys the noise
    seed: Tensor  # [slots]  int64
    quotas: Tensor  # [slots, block]  int64  positions each step must decide at least
    threshold: Tensor  # [slots]  float32
    entropy_bound: Tensor  # [slots]  float32  nats
    stop_entropy: Tensor  # [slots]  float32  nats; negative: off
    temperature: Tensor  # [slots]  float32
    top_k: Tensor  # [slots]  int64
    top_p: Tensor  # [slots]  float32
    edit_threshold: Tensor  # [slots]  float32  2: decided tokens are not edited
    edits_left: Tensor  # [slots]  int64  passes that may still edit once all is decided
    rules: list[CommitRule]  # of each slot
    edits: list[bool]  # whose decided tokens may change
    watched: list[bool]  # whose canvas is reported after every step
    mask_token_id: int

    @classmethod
    def allocate(
        cls, slots: int, block_length: int, mask_token_id: int, device: torch.device
    ) -> "CanvasRegisters":
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        return cls(
            tokens=zeros(block_length),
            decided=zeros(block_length, dtype=torch.bool),
            predicted=zeros(block_length),
            confidence=zeros(block_length, dtype=torch.float32),
            live=zeros(block_length, dtype=torch.bool),
            step=zeros(),
            first=zeros(),
            limit=zeros(),
            block_index=zeros(),
            seed=zeros(),
            quotas=zeros(block_length),
            threshold=zeros(dtype=torch.float32),
            entropy_bound=zeros(dtype=torch.float32),
            stop_entropy=zeros(dtype=torch.float32),
            temperature=zeros(dtype=torch.float32),
            top_k=zeros(),
            top_p=zeros(dtype=torch.float32),
            edit_threshold=zeros(dtype=torch.float32),
            edits_left=zeros(),
            rules=[CommitRule.CONFIDENCE_THRESHOLD] * slots,
            edits=[False] * slots,
            watched=[False] * slots,
            mask_token_id=mask_token_id,
        )

    @property
    def block_length(self) -> int:
        return self.tokens.shape[1]

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """Start a canvas: everything undecided but the prompt's part. Nothing of the slot's past is kept."""
        known = len(spec.known)
        self.tokens[slot] = self.mask_token_id
        if known:
            self.tokens[slot, :known] = torch.tensor(spec.known, device=self.tokens.device)
        self.decided[slot] = False
        self.decided[slot, :known] = True
        self.predicted[slot] = self.tokens[slot]
        self.confidence[slot] = 0.0
        self.confidence[slot, :known] = 1.0
        self.live[slot] = True
        self.step[slot] = 0
        self.first[slot] = known
        self.limit[slot] = spec.limit
        self.block_index[slot] = spec.block_index
        self.watched[slot] = spec.snapshots
        self._set_parameters(slot, spec)

    def _set_parameters(self, slot: int, spec: CanvasSpec) -> None:
        diffusion, sampling = spec.diffusion, spec.sampling
        quotas = step_quotas(self.block_length, diffusion.steps, diffusion.schedule)
        self.quotas[slot] = torch.tensor(quotas, device=self.quotas.device)
        self.rules[slot] = diffusion.commit_rule
        self.threshold[slot] = diffusion.threshold
        self.entropy_bound[slot] = diffusion.entropy_bound
        self.edit_threshold[slot] = NO_EDITS if diffusion.edit_threshold is None else diffusion.edit_threshold
        self.edits[slot] = diffusion.edit_threshold is not None
        self.edits_left[slot] = EDITING_PASSES
        self.stop_entropy[slot] = -1.0 if diffusion.stop_entropy is None else diffusion.stop_entropy
        self.seed[slot] = sampling.seed
        self.temperature[slot] = sampling.temperature
        self.top_k[slot] = sampling.top_k
        self.top_p[slot] = sampling.top_p

    def live_positions(self, slots: Sequence[int]) -> dict[int, list[int]]:
        """Of each slot, the canvas offsets that a partial step computes."""
        if not slots:
            return {}
        rows: list[list[bool]] = self.live[list(slots)].tolist()
        return {
            slot: [offset for offset, live in enumerate(row) if live]
            for slot, row in zip(slots, rows, strict=True)
        }

    def bytes_per_slot(self) -> int:
        """What one more canvas costs, for the report at start."""
        return sum(tensor.nbytes // tensor.shape[0] for tensor in self._tensors())

    def _tensors(self) -> list[Tensor]:
        """Every field but the host-side lists and the mask id."""
        values = [object.__getattribute__(self, field.name) for field in fields(self)]
        return [value for value in values if isinstance(value, Tensor)]
