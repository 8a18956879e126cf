"""SDAR and SDAR-MoE (JetLM, 2025): their published loop, on transformers' Qwen3 and Qwen3-MoE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from easel.bench.oracles.checkpoints import (
    EXPERT_SIZE,
    HEAD_DIM,
    MASK_ID,
    Published,
    Sizes,
    dimensions,
    randomised,
    rope,
    split_experts,
    write_checkpoint,
)
from easel.bench.oracles.masked import (
    Answer,
    CheckpointOracle,
    Draw,
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
from easel.scheduler.request import CommitRule, DiffusionParams, Request

ROPE_THETA = 1e6
FIELDS = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "mask_token_id": MASK_ID,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": ROPE_THETA,
    "sliding_window": None,
    "use_sliding_window": False,
}
EXPERTS = {
    "decoder_sparse_step": 1,
    "mlp_only_layers": list[int](),
    "moe_intermediate_size": EXPERT_SIZE,
    "norm_topk_prob": True,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}


@dataclass(frozen=True, slots=True)
class SdarOracle(CheckpointOracle):
    """Block after block: every step decides some masks of the block, as its rule says."""

    family: str = "SDAR"
    rules: frozenset[CommitRule] = frozenset(CommitRule)

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return predictions(self.checkpoint, tokens, block_causal(len(tokens), self.block_length))

    def generate(self, request: Request) -> Generation:
        refuse_unpublished(request.diffusion, self.rules)
        length, answer = self.block_length, Answer(request, self.checkpoint.eos_ids)
        tokens = [*request.prompt, *request.committed]
        first = len(request.prompt) // length
        while answer.finish is None:
            finished, known = divmod(len(tokens), length)
            states = self._denoise(tokens, finished - first, request)
            answer.add_states([state[known:] for state in states], self.checkpoint.mask_id)
            tokens[finished * length :] = states[-1]
        return answer.generation()

    def _denoise(self, tokens: Sequence[int], block_index: int, request: Request) -> list[list[int]]:
        """The block in which `tokens` end, after each step."""
        length, mask_id = self.block_length, self.checkpoint.mask_id
        start = len(tokens) // length * length
        block = [*tokens[start:], *[mask_id] * (start + length - len(tokens))]
        states: list[list[int]] = []
        while mask_id in block:
            step = len(states)
            logits = self.logits([*tokens[:start], *block])[start:]
            drawn = {
                i: draw_token(
                    logits[i], mask_id, request.sampling, Place(request.sampling.seed, block_index, step, i)
                )
                for i in range(length)
                if block[i] == mask_id
            }
            share = scheduled(step, length, request.diffusion.steps)
            for i in decided(drawn, share, request.diffusion):
                block[i] = drawn[i].token
            states.append(list(block))
        return states


def decided(drawn: Mapping[int, Draw], share: int, params: DiffusionParams) -> list[int]:
    """Which of the masked positions a step decides, `share` at least (generate.py of SDAR).

    The script's entropy rule has no share but one position; with as many steps as the block has
    positions the share is one as well.
    """
    sure = confidences(drawn)
    match params.commit_rule:
        case CommitRule.SEQUENTIAL:
            return sorted(drawn)[:share]
        case CommitRule.STATIC_SCHEDULE:
            return surest(sure, share)
        case CommitRule.CONFIDENCE_THRESHOLD:
            above = [i for i in drawn if sure[i] > params.threshold]
            return above if len(above) >= share else surest(sure, share)
        case CommitRule.ENTROPY_BOUND:
            least = surest({i: -each.entropy for i, each in drawn.items()}, len(drawn))
            sums = accumulate(drawn[i].entropy for i in least)
            return least[: max(share, sum(total < params.entropy_bound for total in sums))]


def write_sdar(path: Path, sizes: Sizes) -> SdarOracle:
    """SDAR's tensors have Qwen3's names; its configuration adds the block size and the mask."""
    backbone = Qwen3Config(
        **dimensions(sizes),
        head_dim=HEAD_DIM,
        rms_norm_eps=1e-6,
        rope_parameters=rope(ROPE_THETA),
        tie_word_embeddings=sizes.tied,
    )
    config = {
        **dimensions(sizes),
        **FIELDS,
        "architectures": ["SDARForCausalLM"],
        "model_type": "sdar",
        "block_size": sizes.block_length,
        "eos_token_id": list(sizes.eos_ids),
        "tie_word_embeddings": sizes.tied,
    }
    model = randomised(Qwen3ForCausalLM(backbone), sizes)
    return SdarOracle(write_checkpoint(path, model, Published(config, {"do_sample": False}), sizes))


def write_sdar_moe(path: Path, sizes: Sizes) -> SdarOracle:
    """Qwen3-MoE's names, an expert's projections one tensor each; the block size is with the defaults."""
    backbone: dict[str, Any] = {
        **dimensions(sizes),
        **EXPERTS,
        "experts_implementation": "eager",  # computes in every dtype
        "head_dim": HEAD_DIM,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope(ROPE_THETA),
        "tie_word_embeddings": False,
    }
    config = {
        **dimensions(sizes),
        **FIELDS,
        **EXPERTS,
        "architectures": ["SDARMoeForCausalLM"],
        "model_type": "sdar_moe",
        "eos_token_id": list(sizes.eos_ids),
        "tie_word_embeddings": False,
    }
    published = Published(config, {"do_sample": False, "block_size": sizes.block_length})
    model = randomised(Qwen3MoeForCausalLM(Qwen3MoeConfig(**backbone)), sizes)
    return SdarOracle(write_checkpoint(path, model, published, sizes, split_experts), "SDAR-MoE")
