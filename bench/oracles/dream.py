"""Dream (Ye et al., 2025) under the block schedule, on transformers' Qwen2 that sees all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from easel.bench.oracles.checkpoints import (
    MASK_ID,
    Published,
    Sizes,
    dimensions,
    randomised,
    rope,
    write_checkpoint,
)
from easel.bench.oracles.llada import transferred
from easel.bench.oracles.masked import (
    Answer,
    CheckpointOracle,
    Generation,
    Place,
    all_visible,
    confidences,
    draw_token,
    predictions,
    refuse_unpublished,
    scheduled,
)
from easel.scheduler.request import CommitRule, Request

ROPE_THETA = 1e6
FIELDS = {
    "architectures": ["DreamModel"],
    "model_type": "Dream",
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "mask_token_id": MASK_ID,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": ROPE_THETA,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
}


@dataclass(frozen=True, slots=True)
class DreamOracle(CheckpointOracle):
    """As LLaDA, but a token is predicted at the position before it, and confidence is that of the draw.

    Dream's own schedule spreads its steps over the whole answer; blocks with a share each are
    Fast-dLLM's use of it (Wu et al., 2025).
    """

    family: str = "Dream"
    rules: frozenset[CommitRule] = frozenset({CommitRule.STATIC_SCHEDULE, CommitRule.CONFIDENCE_THRESHOLD})

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Not shifted: row i predicts token i + 1."""
        return predictions(self.checkpoint, tokens, all_visible(len(tokens)))

    def generate(self, request: Request) -> Generation:
        refuse_unpublished(request.diffusion, self.rules)
        length, mask_id = self.block_length, self.checkpoint.mask_id
        answer = Answer(request, self.checkpoint.eos_ids)
        blocks = -(-request.sampling.max_tokens // length)
        x = [*request.prefix, *[mask_id] * (blocks * length - len(request.committed))]
        for block in range(len(request.committed) // length, blocks):
            start = len(request.prompt) + block * length
            states: list[list[int]] = []
            while mask_id in x[start : start + length]:
                self._step(x, start, Place(request.sampling.seed, block, len(states), 0), request)
                states.append(x[start : start + length])
            answer.add_states(states, mask_id)
            if answer.finish is not None:
                break
        return answer.generation()

    def _step(self, x: list[int], start: int, place: Place, request: Request) -> None:
        """Decide some masks of the block of `x` that begins at `start`."""
        length, mask_id = self.block_length, self.checkpoint.mask_id
        rows = self.logits(x)
        shifted = torch.cat((rows[:1], rows[:-1]))
        drawn = {
            i: draw_token(shifted[i], mask_id, request.sampling, replace(place, position=i - start))
            for i in range(start, start + length)
            if x[i] == mask_id
        }
        share = scheduled(place.step, length, request.diffusion.steps)
        for i in transferred(confidences(drawn), share, request.diffusion):
            x[i] = drawn[i].token


def write_dream(path: Path, sizes: Sizes) -> DreamOracle:
    """Qwen2's names, the biases of q, k and v included."""
    backbone = Qwen2Config(
        **dimensions(sizes), rms_norm_eps=1e-6, rope_parameters=rope(ROPE_THETA), tie_word_embeddings=False
    )
    config = {
        **dimensions(sizes),
        **FIELDS,
        "eos_token_id": sizes.eos_ids[0],
        "max_window_layers": sizes.layers,
    }
    generation = {"eos_token_id": list(sizes.eos_ids), "block_size": sizes.block_length}
    model = randomised(Qwen2ForCausalLM(backbone), sizes)
    return DreamOracle(write_checkpoint(path, model, Published(config, generation), sizes))
