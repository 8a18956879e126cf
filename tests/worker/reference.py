"""Generation by a plain loop over a Hugging Face model: no cache, no batches, no code of the engine.

Only the uniform random numbers are shared, since they are keyed and not drawn.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from easel.bench.oracles.masked import Generation
from easel.kernels.noise import uniform
from easel.scheduler.request import (
    CommitRule,
    DiffusionParams,
    FinishReason,
    Request,
    SamplingParams,
    Schedule,
)
from tests.worker.values import floats


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """A Hugging Face model and what its checkpoint says about blocks."""

    model: Qwen3ForCausalLM
    block_length: int
    mask_id: int
    eos_ids: frozenset[int]

    def converted(self, dtype: torch.dtype) -> "ReferenceModel":
        """The same model computing in another dtype."""
        model = copy.deepcopy(self.model)
        torch.nn.Module.to(model, dtype)
        return replace(self, model=model)

    def generate(self, request: Request) -> Generation:
        length = self.block_length
        end = request.total_tokens
        tokens = [*request.prompt, *request.committed]
        origin = len(request.prompt) // length * length
        blocks: list[tuple[int, ...]] = []
        steps: list[int] = []
        finish: FinishReason | None = None
        while finish is None:
            start = len(tokens) // length * length
            first = max(0, len(request.prompt) - start)
            limit = min(length, end - start)
            block, taken = self._denoise(
                tokens[:start], tokens[start:], limit, (start - origin) // length, request
            )
            new = block[first:limit]
            tokens = [*tokens[:start], *block]
            stop = next((i for i, token in enumerate(new) if token in self.eos_ids), None)
            if stop is not None:
                new, finish = new[:stop], FinishReason.STOP
            elif start + limit == end:
                finish = FinishReason.LENGTH
            blocks.append(tuple(new))
            steps.append(taken)
        return Generation(tuple(blocks), tuple(steps), finish)

    def _denoise(
        self, prefix: list[int], known: list[int], limit: int, block_index: int, request: Request
    ) -> tuple[list[int], int]:
        """The block after `prefix` and the steps it took. `known` tokens are decided from the start."""
        length = self.block_length
        canvas = known + [self.mask_id] * (length - len(known))
        undecided = list(range(len(known), length))
        step = 0
        while not self._is_finished(canvas, undecided, len(known), limit):
            logits = self.logits([*prefix, *canvas])[-length:].double()
            logits[:, self.mask_id] = float("-inf")
            drawn = [_draw(logits[i], i, step, block_index, request.sampling) for i in undecided]
            entropy = [_entropy(logits[i]) for i in undecided]
            confidence = [c for _, c in drawn]
            for chosen in _choose(confidence, entropy, step, length, request.diffusion):
                canvas[undecided[chosen]] = drawn[chosen][0]
            undecided = [i for i in undecided if canvas[i] == self.mask_id]
            step += 1
        return canvas, step

    def _is_finished(self, canvas: list[int], undecided: list[int], first: int, limit: int) -> bool:
        for position in range(first, limit):
            if position in undecided:
                return False
            if canvas[position] in self.eos_ids:
                return True
        return True

    @torch.no_grad()
    def logits(self, tokens: Sequence[int]) -> Tensor:
        """[tokens, vocabulary] of a whole sequence under the dense block-causal mask."""
        block = torch.arange(len(tokens)) // self.block_length
        visible = block[:, None] >= block[None, :]
        bias = torch.zeros(visible.shape, dtype=self.model.dtype).masked_fill(~visible, float("-inf"))
        found = self.model(
            input_ids=torch.tensor([list(tokens)]),
            attention_mask=bias[None, None],
            position_ids=torch.arange(len(tokens))[None],
            use_cache=False,
        )
        return found.logits[0].clone()


def _entropy(logits: Tensor) -> float:
    """Nats."""
    return -sum(p * math.log(p) for p in floats(logits.softmax(-1)) if p > 0.0)


def _draw(
    logits: Tensor, position: int, step: int, block_index: int, sampling: SamplingParams
) -> tuple[int, float]:
    """A token and its probability under the distribution it was drawn from."""
    if sampling.temperature == 0.0:
        probability = logits.softmax(-1)
        token = int(probability.argmax())
        return token, float(probability[token])
    chances = floats((logits / sampling.temperature).softmax(-1))
    nucleus = _nucleus(chances, sampling)
    total = sum(chances[token] for token in nucleus)
    place = [torch.tensor(value) for value in (sampling.seed, block_index, step, position)]
    left = float(uniform(place[0], place[1], place[2], place[3], draw=0)) * total
    token = nucleus[0]
    for token in nucleus:
        left -= chances[token]
        if left < 0.0:
            break
    return token, chances[token] / total


def _nucleus(chances: list[float], sampling: SamplingParams) -> list[int]:
    """The tokens that top-k and then top-p leave, in order of their ids."""
    order = sorted(range(len(chances)), key=lambda token: -chances[token])
    kept = order[: sampling.top_k] if sampling.top_k else order
    total = sum(chances[token] for token in kept)
    nucleus: list[int] = []
    mass = 0.0
    for token in kept:
        nucleus.append(token)
        mass += chances[token] / total
        if mass >= sampling.top_p:
            break
    return sorted(nucleus)


def _choose(
    confidence: list[float], entropy: list[float], step: int, length: int, params: DiffusionParams
) -> list[int]:
    """Indices, among the undecided positions, of those this step decides."""
    everything = list(range(len(confidence)))
    if params.stop_entropy is not None and sum(entropy) / len(entropy) < params.stop_entropy:
        return everything
    quota = _quota(step, length, params)
    surest = sorted(everything, key=lambda i: -confidence[i])
    match params.commit_rule:
        case CommitRule.STATIC_SCHEDULE:
            return surest[:quota]
        case CommitRule.SEQUENTIAL:
            return everything[:quota]
        case CommitRule.CONFIDENCE_THRESHOLD:
            above = [i for i in everything if confidence[i] > params.threshold]
            return above if len(above) >= quota else surest[:quota]
        case CommitRule.ENTROPY_BOUND:
            least = sorted(everything, key=lambda i: entropy[i])
            sums = [sum(entropy[i] for i in least[: n + 1]) for n in everything]
            return least[: max(quota, sum(total < params.entropy_bound for total in sums))]


def _quota(step: int, length: int, params: DiffusionParams) -> int:
    if params.schedule is Schedule.LINEAR:
        share = length // params.steps + (step < length % params.steps)
    else:

        def masked(steps: int) -> int:
            return math.floor(length * math.cos(math.pi / 2 * steps / params.steps) + 1e-9)

        share = masked(step) - masked(step + 1)
    return max(1, share)
