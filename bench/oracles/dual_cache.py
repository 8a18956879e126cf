"""The dual cache of Fast-dLLM (Wu et al., 2025) for LLaDA and Dream, on transformers' models.

A full forward over the whole sequence at a block's start and every N steps; in between only the
block goes through the model, beside the keys and values that the last full forward left of
everything before and after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from easel.bench.oracles.dream import DreamOracle
from easel.bench.oracles.llada import LladaOracle, transferred
from easel.bench.oracles.masked import Answer, Generation, Place, draw_token, scheduled
from easel.scheduler.request import Request


@dataclass(frozen=True, slots=True)
class DualCacheOracle:
    """The loop of `exact`, with the request's `rebuild_every` as the period of full forwards."""

    exact: LladaOracle | DreamOracle

    def generate(self, request: Request) -> Generation:
        length, mask_id = self.exact.block_length, self.exact.checkpoint.mask_id
        answer = Answer(request, self.exact.checkpoint.eos_ids)
        blocks = -(-request.sampling.max_tokens // length)
        x = [*request.prompt, *[mask_id] * (blocks * length)]
        for block in range(blocks):
            start = len(request.prompt) + block * length
            answer.add_states(self._unmask(x, start, block, request), mask_id)
            if answer.finish is not None:
                break
        return answer.generation()

    def _unmask(self, x: list[int], start: int, block: int, request: Request) -> list[list[int]]:
        """Fill the masks of the block of `x` that begins at `start`; returns it after each step."""
        length, mask_id = self.exact.block_length, self.exact.checkpoint.mask_id
        shift = int(isinstance(self.exact, DreamOracle))  # the token before the block predicts its first
        block_forward, states = _BlockForward(self.exact.checkpoint.model), list[list[int]]()
        while mask_id in x[start : start + length]:
            step = len(states)
            if step % request.diffusion.rebuild_every == 0:
                block_forward.rebuild(x, start - shift, start + length)
            rows = block_forward.logits(x)
            sure: dict[int, float] = {}
            drawn: dict[int, int] = {}
            for i in range(start, start + length):
                if x[i] == mask_id:
                    place = Place(request.sampling.seed, block, step, i - start)
                    each = draw_token(rows[i - start], mask_id, request.sampling, place)
                    drawn[i], sure[i] = each.token, each.confidence if shift else each.plain_confidence
            for i in transferred(sure, scheduled(step, length, request.diffusion.steps), request.diffusion):
                x[i] = drawn[i]
            states.append(x[start : start + length])
        return states


class _BlockForward:
    """Forwards of a block beside the frozen keys and values of the rest."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._first = self._end = 0
        self._frozen: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def rebuild(self, x: Sequence[int], first: int, end: int) -> None:
        """A full forward; what it leaves of the positions outside [first, end) is kept."""
        self._first, self._end = first, end
        cache = DynamicCache()
        self._forward(x, 0, cache)
        outside = [i for i in range(len(x)) if not first <= i < end]
        layers: Any = cache.layers  # transformers types them as layers that may be empty
        self._frozen = [(layer.keys[:, :, outside], layer.values[:, :, outside]) for layer in layers]

    @torch.no_grad()
    def logits(self, x: Sequence[int]) -> Tensor:
        """Rows of the positions [first, end), each the one that predicts a token of the block."""
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._frozen):
            cache.update(keys, values, index)
        return self._forward(x[self._first : self._end], self._first, cache)

    def _forward(self, tokens: Sequence[int], start: int, cache: DynamicCache) -> Tensor:
        count = len(tokens)
        found = self._model(
            input_ids=torch.tensor([list(tokens)]),
            attention_mask=torch.zeros(1, 1, count, count + cache.get_seq_length()),
            position_ids=torch.arange(start, start + count)[None],
            past_key_values=cache,
            use_cache=True,
        )
        return found.logits[0]
