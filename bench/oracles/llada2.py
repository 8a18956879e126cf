"""LLaDA2.0 and LLaDA2.1 (inclusionAI, 2025): their published loops, on transformers' GLM-4-MoE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

from easel.bench.oracles.checkpoints import (
    EXPERT_SIZE,
    HEAD_DIM,
    MASK_ID,
    Published,
    Sizes,
    dimensions,
    randomised,
    renamed,
    rope,
    split_experts,
    write_checkpoint,
)
from easel.bench.oracles.masked import (
    Answer,
    CheckpointOracle,
    Generation,
    Place,
    block_causal,
    confidences,
    draw_token,
    predictions,
    refuse_unpublished,
    scheduled,
    surest,
)
from easel.scheduler.request import CommitRule, Request

EDITING_PASSES = 16  # at most, once a block has no mask (LLaDA2.1: max_post_steps)
ROPE_THETA = 6e5
EXPERTS = {
    "first_k_dense_replace": 1,
    "moe_intermediate_size": EXPERT_SIZE,
    "n_group": 4,
    "norm_topk_prob": True,
    "num_experts_per_tok": 3,
    "routed_scaling_factor": 2.5,
    "topk_group": 2,
}
FIELDS = {
    "architectures": ["LLaDA2MoeModelLM"],
    "model_type": "llada2_moe",
    "attention_dropout": 0.0,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "mask_token_id": MASK_ID,
    "moe_router_enable_expert_bias": True,
    "num_experts": 16,
    "num_shared_experts": 1,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": ROPE_THETA,
    "router_dtype": "fp32",
    "score_function": "sigmoid",
    "tie_word_embeddings": False,
    "use_bias": False,
    "use_qk_norm": True,
    "use_qkv_bias": False,
    **EXPERTS,
}
NAMES = {
    "embed_tokens": "word_embeddings",
    "gate.e_score_correction_bias": "gate.expert_bias",
    "self_attn.k_norm": "attention.key_layernorm",
    "self_attn.o_proj": "attention.dense",
    "self_attn.q_norm": "attention.query_layernorm",
}


@dataclass(frozen=True, slots=True)
class Llada2Oracle(CheckpointOracle):
    """A request with an edit threshold runs LLaDA2.1's loop, any other LLaDA2.0's."""

    family: str = "LLaDA2"
    rules: frozenset[CommitRule] = frozenset({CommitRule.CONFIDENCE_THRESHOLD})

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return predictions(self.checkpoint, tokens, block_causal(len(tokens), self.block_length))

    def generate(self, request: Request) -> Generation:
        refuse_unpublished(request.diffusion, self.rules)
        length, answer = self.block_length, Answer(request, self.checkpoint.eos_ids)
        prefix, prompt_blocks = request.prefix, len(request.prompt) // length
        blocks = -(-request.total_tokens // length)
        x = [*prefix, *[self.checkpoint.mask_id] * (blocks * length - len(prefix))]
        for block in range(len(prefix) // length, blocks):
            window = x[: (block + 1) * length]
            known = max(0, len(request.prompt) - block * length)
            if request.diffusion.edit_threshold is None:
                states = self._unmask(window, block - prompt_blocks, request)
                answer.add_states([state[known:] for state in states], self.checkpoint.mask_id)
            else:
                passes = self._unmask_and_edit(window, block - prompt_blocks, known, request)
                answer.add(window[block * length + known :], passes)
            x[: len(window)] = window
            if answer.finish is not None:
                break
        return answer.generation()

    def _unmask(self, x: list[int], block_index: int, request: Request) -> list[list[int]]:
        """LLaDA2.0: fill the masks at the end of `x`; returns the last block after each step."""
        states: list[list[int]] = []
        start = len(x) - self.block_length
        for step in range(request.diffusion.steps):
            masked = [i for i in range(start, len(x)) if x[i] == self.checkpoint.mask_id]
            if not masked:
                break
            tokens, sure = self._draw(x, masked, Place(request.sampling.seed, block_index, step, 0), request)
            share = scheduled(step, self.block_length, request.diffusion.steps)
            high = [i for i in masked if sure[i] > request.diffusion.threshold]
            for i in high if len(high) >= share else surest(sure, share):
                x[i] = tokens[i]
            states.append(x[start:])
        return states

    def _unmask_and_edit(self, x: list[int], block_index: int, known: int, request: Request) -> int:
        """LLaDA2.1: fill the masks at the end of `x` and replace what is surely otherwise.

        The block's first `known` tokens are the prompt's. Returns the passes taken.
        """
        start, bound = len(x) - self.block_length, request.diffusion.edit_threshold or 0.0
        passes, extra = 0, 0
        while True:
            masked = [i for i in range(start, len(x)) if x[i] == self.checkpoint.mask_id]
            if not masked:
                extra += 1
            if extra > EDITING_PASSES:
                return passes
            output = range(start + known, len(x))
            place = Place(request.sampling.seed, block_index, passes, 0)
            tokens, sure = self._draw(x, output, place, request)
            high = [i for i in masked if sure[i] > request.diffusion.threshold]
            unmasked = high or surest({i: sure[i] for i in masked}, 1)
            edited = [i for i in output if i not in masked and sure[i] > bound and tokens[i] != x[i]]
            for i in (*unmasked, *edited):
                x[i] = tokens[i]
            passes += 1
            if not masked and not edited:
                return passes

    def _draw(
        self, x: Sequence[int], wanted: Sequence[int], place: Place, request: Request
    ) -> tuple[dict[int, int], dict[int, float]]:
        """Tokens and confidences at positions of `x`, which ends with the block that is denoised."""
        logits, start = self.logits(x), len(x) - self.block_length
        drawn = {
            i: draw_token(
                logits[i], self.checkpoint.mask_id, request.sampling, replace(place, position=i - start)
            )
            for i in wanted
        }
        return {i: each.token for i, each in drawn.items()}, confidences(drawn)


def write_llada2(path: Path, sizes: Sizes) -> Llada2Oracle:
    """One dense layer, then experts in groups with a shared one; q, k and v are one tensor."""
    backbone: dict[str, Any] = {
        **dimensions(sizes),
        **EXPERTS,
        "experts_implementation": "eager",  # computes in every dtype
        "head_dim": HEAD_DIM,
        "n_routed_experts": 16,
        "n_shared_experts": 1,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {**rope(ROPE_THETA), "partial_rotary_factor": 0.5},
        "tie_word_embeddings": False,
        "use_qk_norm": True,
    }
    generation = {"eos_token_id": list(sizes.eos_ids), "block_size": sizes.block_length}
    published = Published({**dimensions(sizes), **FIELDS}, generation)
    model = randomised(Glm4MoeForCausalLM(Glm4MoeConfig(**backbone)), sizes)
    return Llada2Oracle(write_checkpoint(path, model, published, sizes, _published_tensors))


def _published_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = split_experts(tensors)
    for name in [name for name in found if name.endswith("self_attn.q_proj.weight")]:
        place = name.removesuffix("self_attn.q_proj.weight")
        parts = [found.pop(f"{place}self_attn.{part}_proj.weight") for part in "qkv"]
        found[f"{place}attention.query_key_value.weight"] = torch.cat(parts)
    return renamed(found, NAMES)
