"""What the reference loops of all masked families share: predictions, drawn tokens, the answer.

A reference loop recomputes the whole sequence at every step, under a dense mask and without a cache. Of
the engine it takes the keyed random numbers alone, since those are looked up and not drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from easel.bench.oracles.checkpoints import Checkpoint, floats
from easel.kernels.noise import uniform
from easel.scheduler.request import (
    CommitRule,
    DiffusionParams,
    FinishReason,
    Request,
    SamplingParams,
    Schedule,
)


@dataclass(frozen=True, slots=True)
class Generation:
    """What came of one request, block by block; neither end-of-sequence nor prompt is included."""

    blocks: tuple[tuple[int, ...], ...]
    steps: tuple[int, ...]  # of each block
    finish: FinishReason | None

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for block in self.blocks for token in block)


class Oracle(Protocol):
    """A family's plain loop over a Hugging Face model."""

    @property
    def family(self) -> str: ...
    @property
    def checkpoint(self) -> Checkpoint: ...
    @property
    def path(self) -> Path: ...
    @property
    def block_length(self) -> int: ...
    @property
    def rules(self) -> frozenset[CommitRule]: ...  # those the family publishes

    def generate(self, request: Request) -> Generation:
        """Raises ValueError for settings that the family's published loop does not have."""
        ...

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """[tokens, vocabulary] of a whole sequence, neither shifted nor forbidden."""
        ...


@dataclass(frozen=True, slots=True)
class CheckpointOracle:
    """What the oracles of all masked families have in common: the checkpoint they run."""

    checkpoint: Checkpoint

    @property
    def path(self) -> Path:
        return self.checkpoint.path

    @property
    def block_length(self) -> int:
        return self.checkpoint.block_length

    def converted(self, dtype: torch.dtype) -> Self:
        """The same oracle computing in another dtype."""
        return replace(self, checkpoint=self.checkpoint.converted(dtype))


@dataclass(frozen=True, slots=True)
class Place:
    """What a random number is looked up by."""

    seed: int
    block_index: int
    step: int
    position: int  # within the block


@dataclass(frozen=True, slots=True)
class Draw:
    """A token, its probability where it was drawn from, and what the model itself says."""

    token: int
    confidence: float
    plain_confidence: float  # under the model's distribution, neither tempered nor cut
    entropy: float  # nats, of the model's distribution


@dataclass(slots=True)
class Answer:
    """A request's blocks as they are finished: cut at max_tokens and before the first end-of-sequence."""

    request: Request
    eos_ids: frozenset[int]
    blocks: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    steps: list[int] = field(default_factory=list[int])
    finish: FinishReason | None = None

    @property
    def tokens_left(self) -> int:
        written = len(self.request.committed) + sum(len(block) for block in self.blocks)
        return self.request.sampling.max_tokens - written

    def add(self, block: Sequence[int], steps: int) -> None:
        """A block's output tokens, all of them, whatever lies beyond the end."""
        end = self._end(block)
        if any(token in self.eos_ids for token in block[: self.tokens_left]):
            self.finish = FinishReason.STOP
        elif end == self.tokens_left:
            self.finish = FinishReason.LENGTH
        self.blocks.append(tuple(block[:end]))
        self.steps.append(steps)

    def add_states(self, states: Sequence[Sequence[int]], mask_id: int) -> None:
        """A block by what it held after each step, where decided tokens stay.

        The loop goes on to the end of the block; counted are the steps until nothing that will be
        read is open.
        """
        open_until = [step for step, state in enumerate(states, 1) if mask_id in state[: self._end(state)]]
        self.add(states[-1], steps=max(open_until, default=0) + 1)

    def generation(self) -> Generation:
        return Generation(tuple(self.blocks), tuple(self.steps), self.finish)

    def _end(self, block: Sequence[int]) -> int:
        """Positions that are read of a block: those before end-of-sequence, at most `tokens_left`."""
        stop = next((i for i, token in enumerate(block) if token in self.eos_ids), len(block))
        return min(stop, self.tokens_left)


@torch.no_grad()
def predictions(checkpoint: Checkpoint, tokens: Sequence[int], visible: Tensor) -> Tensor:
    """Logits [n, vocabulary] in the model's dtype; visible [n, n] bool: which key each query sees."""
    dtype = next(checkpoint.model.parameters()).dtype
    bias = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, float("-inf"))
    found = checkpoint.model(
        input_ids=torch.tensor([list(tokens)]),
        attention_mask=bias[None, None],
        position_ids=torch.arange(len(tokens))[None],
        use_cache=False,
    )
    return found.logits[0].clone()


def block_causal(tokens: int, block_length: int) -> Tensor:
    """[tokens, tokens] bool: a query sees its own block and those before."""
    block = torch.arange(tokens) // block_length
    return block[:, None] >= block[None, :]


def all_visible(tokens: int) -> Tensor:
    return torch.ones(tokens, tokens, dtype=torch.bool)


def draw_token(logits: Tensor, mask_id: int, sampling: SamplingParams, place: Place) -> Draw:
    """Draw from logits [vocabulary] by inverse CDF over token ids; temperature 0 takes the best token."""
    logits = logits.double().clone()
    logits[mask_id] = float("-inf")  # no published loop forbids it, and some would never end
    plain = floats(logits.softmax(-1))
    entropy = -sum(p * math.log(p) for p in plain if p > 0.0)
    if sampling.temperature == 0.0:
        token = max(range(len(plain)), key=plain.__getitem__)
        return Draw(token, plain[token], plain[token], entropy)
    chances = _filtered(floats((logits / sampling.temperature).softmax(-1)), sampling)
    keys = [torch.tensor(key) for key in (place.seed, place.block_index, place.step, place.position)]
    mark = float(uniform(keys[0], keys[1], keys[2], keys[3], draw=0)) * sum(chances.values())
    sums = zip(sorted(chances), accumulate(chances[token] for token in sorted(chances)), strict=True)
    token = next((token for token, total in sums if total > mark), max(chances))
    return Draw(token, chances[token] / sum(chances.values()), plain[token], entropy)


def _filtered(chances: Sequence[float], sampling: SamplingParams) -> dict[int, float]:
    """Chances by token, of those that top-k and then top-p leave."""
    ranked = sorted(range(len(chances)), key=lambda token: -chances[token])
    ranked = ranked[: sampling.top_k or None]
    total = sum(chances[token] for token in ranked)
    kept: dict[int, float] = {}
    for token in ranked:
        if sum(kept.values()) >= sampling.top_p * total:
            break
        kept[token] = chances[token]
    return kept


def scheduled(step: int, block_length: int, steps: int) -> int:
    """Positions that step is to decide: an equal share, the remainder given to the first steps."""
    return block_length // steps + (step < block_length % steps)


def surest(scores: Mapping[int, float], count: int) -> list[int]:
    """The `count` positions of highest score, the earlier one first among equals."""
    return sorted(scores, key=lambda position: (-scores[position], position))[:count]


def confidences(drawn: Mapping[int, Draw]) -> dict[int, float]:
    return {position: each.confidence for position, each in drawn.items()}


def refuse_unpublished(params: DiffusionParams, rules: Iterable[CommitRule]) -> None:
    """Raises ValueError for what only the engine offers."""
    if params.commit_rule not in rules:
        raise ValueError(f"{params.commit_rule} is not among the family's rules, {sorted(rules)}")
    if params.schedule is not Schedule.LINEAR or params.stop_entropy is not None:
        raise ValueError(f"the published loops know neither {params.schedule} nor stop_entropy")
