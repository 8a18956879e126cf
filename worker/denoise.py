"""What happens to masked canvases between the head and the next step: draw, decide, edit, stop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from easel.kernels.head import HeadStats, Sampling, head_stats
from easel.kernels.noise import uniform
from easel.scheduler.messages import CanvasSpec
from easel.worker.commit_rules import CanvasView, accept
from easel.worker.registers import CanvasRegisters
from easel.worker.stop_rules import edited_to_the_end, finished, mean_entropy, settled_by_entropy

TOKEN_DRAW = 0  # which of a position's random numbers picks its token


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of each of c canvases, after one step."""

    done: Tensor  # [c]  bool
    undecided: Tensor  # [c]  int64  positions still open
    mean_entropy: Tensor  # [c]  float32  nats, over the positions open before the step
    live: Tensor  # [c]  int64  positions a partial step would compute next


class Denoiser(Protocol):
    """What a model family does with a canvas. It updates the registers, and its own if it has any."""

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """Complete a canvas that the registers have just opened."""
        ...

    def conditioning(self, slots: Tensor) -> Tensor | None:
        """What the next step of the canvases in `slots` [c] is conditioned on, [c, block, h]."""
        ...

    def step(self, slots: Sequence[int], hidden: Tensor) -> Outcome:
        """One denoising step. hidden [c, block, h], in the order of `slots`."""
        ...

    def bytes_per_slot(self) -> int:
        """What it keeps of each canvas besides the registers."""
        ...


@dataclass(frozen=True, slots=True)
class MaskedDenoiser:
    """Undecided positions hold the mask; a decided one stays, unless tokens are edited."""

    registers: CanvasRegisters
    head: Tensor  # [vocabulary, h]
    eos_token_ids: Tensor  # [k]  int64
    plain_confidence: bool = False  # of drawn tokens: under the model's distribution, as LLaDA has it

    def open(self, slot: int, spec: CanvasSpec) -> None:
        """The registers are all there is."""

    def conditioning(self, slots: Tensor) -> None:
        """These models are conditioned on tokens only."""

    def bytes_per_slot(self) -> int:
        return 0

    def step(self, slots: Sequence[int], hidden: Tensor) -> Outcome:
        registers = self.registers
        at = torch.tensor(slots, dtype=torch.int64, device=hidden.device)
        undecided = ~registers.decided[at]
        editable = self._editable(slots, at)
        stats = self._head(at, hidden, undecided | editable)
        accepted = self._accepted(slots, at, undecided, stats)
        edited = editable & (stats.confidence > registers.edit_threshold[at][:, None])
        edited &= stats.token != registers.tokens[at]
        self._update(at, undecided, accepted, edited, stats)
        tokens, decided = registers.tokens[at], registers.decided[at]
        read = finished(tokens, decided, registers.first[at], registers.limit[at], self.eos_token_ids)
        settled = edited_to_the_end(undecided, edited, registers.edits_left[at])
        return Outcome(
            done=torch.where(registers.edit_threshold[at] <= 1.0, settled, read),
            undecided=(~decided).sum(-1),
            mean_entropy=mean_entropy(stats.entropy, undecided),
            live=registers.live[at].sum(-1),
        )

    def _editable(self, slots: Sequence[int], at: Tensor) -> Tensor:
        """Decided output tokens that may be replaced (LLaDA2.1)."""
        registers = self.registers
        if not any(registers.edits[slot] for slot in slots):
            return torch.zeros_like(registers.decided[at])
        output = torch.arange(registers.block_length, device=at.device) >= registers.first[at][:, None]
        return registers.decided[at] & output & (registers.edit_threshold[at] <= 1.0)[:, None]

    def _head(self, at: Tensor, hidden: Tensor, wanted: Tensor) -> HeadStats:
        """Statistics [c, block] each; where none are wanted: token 0, confidence 0, entropy 0."""
        row, position = wanted.nonzero(as_tuple=True)
        sampling = self._sampling(at, row, position)
        found = head_stats(
            hidden[row, position],
            self.head,
            self.registers.mask_token_id,
            sampling,
            plain_confidence=self.plain_confidence,
        )
        token = torch.zeros_like(wanted, dtype=torch.int64)
        confidence = torch.zeros_like(wanted, dtype=torch.float32)
        entropy = torch.zeros_like(confidence)
        token[row, position] = found.token
        confidence[row, position] = found.confidence
        entropy[row, position] = found.entropy
        return HeadStats(token=token, confidence=confidence, entropy=entropy)

    def _sampling(self, at: Tensor, row: Tensor, position: Tensor) -> Sampling | None:
        """How each wanted position is drawn; None when all canvases are greedy."""
        registers = self.registers
        if not bool((registers.temperature[at] > 0).any()):
            return None
        slot = at[row]
        noise = uniform(
            registers.seed[slot], registers.block_index[slot], registers.step[slot], position, TOKEN_DRAW
        )
        return Sampling(
            temperature=registers.temperature[slot],
            top_k=registers.top_k[slot],
            top_p=registers.top_p[slot],
            noise=noise,
        )

    def _accepted(self, slots: Sequence[int], at: Tensor, undecided: Tensor, stats: HeadStats) -> Tensor:
        registers = self.registers
        step = registers.step[at].clamp(max=registers.block_length - 1)
        view = CanvasView(
            undecided=undecided,
            confidence=stats.confidence,
            entropy=stats.entropy.masked_fill(~undecided, 0.0),
            quota=registers.quotas[at].gather(-1, step[:, None]).squeeze(-1),
            threshold=registers.threshold[at],
            entropy_bound=registers.entropy_bound[at],
        )
        settled = settled_by_entropy(stats.entropy, undecided, registers.stop_entropy[at])
        return accept([registers.rules[slot] for slot in slots], view) | (undecided & settled[:, None])

    def _update(
        self, at: Tensor, undecided: Tensor, accepted: Tensor, edited: Tensor, stats: HeadStats
    ) -> None:
        registers = self.registers
        changed = accepted | edited
        registers.tokens[at] = torch.where(changed, stats.token, registers.tokens[at])
        registers.decided[at] |= accepted
        registers.live[at] = undecided
        shown = undecided | edited
        registers.predicted[at] = torch.where(shown, stats.token, registers.predicted[at])
        registers.confidence[at] = torch.where(shown, stats.confidence, registers.confidence[at])
        registers.edits_left[at] -= (~undecided).all(-1).to(torch.int64)
        registers.step[at] += 1
