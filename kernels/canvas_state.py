"""The registers of masked canvases as kernels see them: tensors with a row per slot."""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Whole(IntEnum):
    """Columns of `CanvasState.integers`. A step changes the first few, and with editing one more."""

    ACTIVE = 0  # 1 until the canvas is finished; a step changes nothing of a slot that has 0
    STEP = 1  # denoising steps taken on this block
    UNDECIDED = 2  # positions still open after the last step
    LIVE = 3  # positions a partial step would compute next
    FIRST = 4  # positions before it belong to the prompt
    LIMIT = 5  # positions from it on lie beyond max_tokens
    BLOCK_INDEX = 6  # keys the noise
    SEED = 7
    TOP_K = 8
    EDITS_LEFT = 9  # passes that may still edit once all is decided
    RULE = 10  # see commit_rules.Rule


class Real(IntEnum):
    """Columns of `CanvasState.numbers`. A step changes the first two."""

    MEAN_ENTROPY = 0  # nats, of the last step, over the positions that were open before it
    ENTROPY_SUM = 1  # of all steps' means
    THRESHOLD = 2
    ENTROPY_BOUND = 3  # nats
    STOP_ENTROPY = 4  # nats; negative: off
    TEMPERATURE = 5
    TOP_P = 6
    EDIT_THRESHOLD = 7  # above 1: decided tokens are not edited


@dataclass(frozen=True, slots=True)
class CanvasState:
    """Volatile state of every canvas. What the host sets and what steps change lies side by side,
    so that a step gathers a slot's numbers in two reads."""

    tokens: Tensor  # [slots, block]  int64    what the next step reads; undecided positions hold the mask
    decided: Tensor  # [slots, block]  bool     positions the commit rule has accepted
    predicted: Tensor  # [slots, block]  int64    the last step's choice; of masked canvases if it is shown
    confidence: Tensor  # [slots, block]  float32  its probability; of a decided one, when accepted
    live: Tensor  # [slots, block]  bool     of partial steps: what the next computes, open before the last
    quotas: Tensor  # [slots, block]  int64    positions each step must decide at least
    integers: Tensor  # [slots, len(Whole)]  int64
    numbers: Tensor  # [slots, len(Real)]  float32

    @classmethod
    def allocate(cls, slots: int, block_length: int, device: torch.device) -> "CanvasState":
        def zeros(width: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots, width, dtype=dtype, device=device)

        return cls(
            tokens=zeros(block_length),
            decided=zeros(block_length, torch.bool),
            predicted=zeros(block_length),
            confidence=zeros(block_length, torch.float32),
            live=zeros(block_length, torch.bool),
            quotas=zeros(block_length),
            integers=zeros(len(Whole)),
            numbers=zeros(len(Real), torch.float32),
        )

    @property
    def block_length(self) -> int:
        return self.tokens.shape[1]

    def whole(self, column: Whole) -> Tensor:
        """[slots] int64, a view."""
        return self.integers.select(1, column)

    def real(self, column: Real) -> Tensor:
        """[slots] float32, a view."""
        return self.numbers.select(1, column)

    def tensors(self) -> dict[str, Tensor]:
        return {
            "tokens": self.tokens,
            "decided": self.decided,
            "predicted": self.predicted,
            "confidence": self.confidence,
            "live": self.live,
            "quotas": self.quotas,
            "integers": self.integers,
            "numbers": self.numbers,
        }


def book_step(
    state: CanvasState,
    at: Tensor,
    integers: Tensor,
    numbers: Tensor,
    *,
    done: Tensor,
    undecided: Tensor,
    live: Tensor,
    mean: Tensor,
) -> None:
    """Write what a step came to, for those of the canvases of slots `at` [c] that were active.

    integers [c, len(Whole)] and numbers [c, len(Real)] are what was gathered of them, and are
    overwritten. done [c] bool; undecided, live [c] int64 positions; mean [c] float32 nats.
    """
    was = integers[:, Whole.ACTIVE, None] > 0
    counted, entropy = integers[:, : Whole.FIRST], numbers[:, : Real.THRESHOLD]
    after = torch.stack((done.logical_not(), integers[:, Whole.STEP] + 1, undecided, live), dim=1)
    summed = torch.stack((mean, numbers[:, Real.ENTROPY_SUM] + mean), dim=1)
    counted.copy_(torch.where(was, after, counted))
    entropy.copy_(torch.where(was, summed, entropy))
    state.integers.index_copy_(0, at, integers)
    state.numbers.index_copy_(0, at, numbers)
