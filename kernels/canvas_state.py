"""The registers of masked canvases as kernels see them: tensors with a row per slot."""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Whole(IntEnum):
    """Columns of `CanvasState.integers`."""

    ACTIVE = 0  # 1 until the canvas is finished; a step changes nothing of a slot that has 0
    STEP = 1  # denoising steps taken on this block
    FIRST = 2  # positions before it belong to the prompt
    LIMIT = 3  # positions from it on lie beyond max_tokens
    BLOCK_INDEX = 4  # keys the noise
    SEED = 5
    TOP_K = 6
    EDITS_LEFT = 7  # passes that may still edit once all is decided
    RULE = 8  # see commit_rules.Rule
    UNDECIDED = 9  # positions still open after the last step
    LIVE = 10  # positions a partial step would compute next


class Real(IntEnum):
    """Columns of `CanvasState.numbers`."""

    THRESHOLD = 0
    ENTROPY_BOUND = 1  # nats
    STOP_ENTROPY = 2  # nats; negative: off
    TEMPERATURE = 3
    TOP_P = 4
    EDIT_THRESHOLD = 5  # above 1: decided tokens are not edited
    MEAN_ENTROPY = 6  # nats, of the last step, over the positions that were open before it
    ENTROPY_SUM = 7  # of all steps' means


@dataclass(frozen=True, slots=True)
class CanvasState:
    """Volatile state of every canvas. What the host sets and what steps change lies side by side,
    so that a step gathers a slot's numbers in two reads."""

    tokens: Tensor  # [slots, block]  int64    what the next step reads; undecided positions hold the mask
    decided: Tensor  # [slots, block]  bool     positions the commit rule has accepted
    predicted: Tensor  # [slots, block]  int64    the last step's choice, decided or not
    confidence: Tensor  # [slots, block]  float32  probability of `predicted`; of a decided one, when accepted
    live: Tensor  # [slots, block]  bool     what a partial step computes: undecided, or decided just now
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


def after_step(integers: Tensor, done: Tensor, undecided: Tensor, live: Tensor) -> Tensor:
    """The integers [c, len(Whole)] of c active canvases once a step has left so many positions.

    done [c] bool; undecided, live [c] int64.
    """
    after = integers.clone()
    after[:, Whole.ACTIVE] = (~done).to(torch.int64)
    after[:, Whole.STEP] += 1
    after[:, Whole.UNDECIDED] = undecided
    after[:, Whole.LIVE] = live
    return after


def with_mean_entropy(numbers: Tensor, mean: Tensor) -> Tensor:
    """The numbers [c, len(Real)] of c canvases once a step has found mean entropies [c], nats."""
    after = numbers.clone()
    after[:, Real.MEAN_ENTROPY] = mean
    after[:, Real.ENTROPY_SUM] += mean
    return after
