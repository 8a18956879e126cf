"""LLaDA 1.0 and 1.5 (Nie et al., 2025): their published loop, on transformers' Llama that sees all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from easel.bench.oracles.checkpoints import (
    HIDDEN_SIZE,
    INTERMEDIATE_SIZE,
    MASK_ID,
    PAD_ID,
    Published,
    Sizes,
    dimensions,
    randomised,
    renamed,
    rope,
    write_checkpoint,
)
from easel.bench.oracles.masked import (
    Answer,
    CheckpointOracle,
    Generation,
    Place,
    all_visible,
    draw_token,
    predictions,
    refuse_unpublished,
    scheduled,
    surest,
)
from easel.scheduler.request import CommitRule, DiffusionParams, Request

ROPE_THETA = 5e5
FIELDS = {
    "architectures": ["LLaDAModelLM"],
    "model_type": "llada",
    "activation_type": "silu",
    "alibi": False,
    "attention_layer_norm": False,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": HIDDEN_SIZE,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mask_token_id": MASK_ID,
    "mlp_hidden_size": INTERMEDIATE_SIZE,
    "mlp_ratio": 4,
    "multi_query_attention": None,
    "pad_token_id": PAD_ID,
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": ROPE_THETA,
    "scale_logits": False,
    "weight_tying": False,
}
NAMES = {
    "lm_head": "transformer.ff_out",
    "mlp.down_proj": "ff_out",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "model.embed_tokens": "transformer.wte",
    "model.layers": "transformer.blocks",
    "model.norm": "transformer.ln_f",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    "self_attn.o_proj": "attn_out",
    "self_attn.": "",
    "transformer.": "model.transformer.",
}


@dataclass(frozen=True, slots=True)
class LladaOracle(CheckpointOracle):
    """All sees all, the masks still to come included; blocks follow the prompt's last token."""

    family: str = "LLaDA"
    rules: frozenset[CommitRule] = frozenset({CommitRule.STATIC_SCHEDULE, CommitRule.CONFIDENCE_THRESHOLD})

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return predictions(self.checkpoint, tokens, all_visible(len(tokens)))

    def generate(self, request: Request) -> Generation:
        """The published loop fills every block and cuts the answer afterwards; blocks after the end are
        not computed here, for no block depends on a later one's tokens."""
        refuse_unpublished(request.diffusion, self.rules)
        length, answer = self.block_length, Answer(request, self.checkpoint.eos_ids)
        blocks = -(-request.sampling.max_tokens // length)
        output = [*request.committed, *[self.checkpoint.mask_id] * (blocks * length - len(request.committed))]
        x = [*request.prompt, *output]
        for block in range(len(request.committed) // length, blocks):
            states = self._unmask(x, block, request)
            answer.add_states(states, self.checkpoint.mask_id)
            if answer.finish is not None:
                break
        return answer.generation()

    def _unmask(self, x: list[int], block: int, request: Request) -> list[list[int]]:
        """Fill the masks of one block of `x`; returns the block after each step."""
        length, states = self.block_length, list[list[int]]()
        start = len(request.prompt) + block * length
        while self.checkpoint.mask_id in x[start : start + length]:
            step = len(states)
            masked = [i for i in range(start, start + length) if x[i] == self.checkpoint.mask_id]
            logits = self.logits(x)
            drawn = {
                i: draw_token(
                    logits[i],
                    self.checkpoint.mask_id,
                    request.sampling,
                    Place(request.sampling.seed, block, step, i - start),
                )
                for i in masked
            }
            sure = {i: each.plain_confidence for i, each in drawn.items()}
            for i in transferred(sure, scheduled(step, length, request.diffusion.steps), request.diffusion):
                x[i] = drawn[i].token
            states.append(x[start : start + length])
        return states


def transferred(sure: Mapping[int, float], share: int, params: DiffusionParams) -> list[int]:
    """Which masked positions a step decides: the `share` surest, or by threshold.

    Fast-dLLM (Wu et al., 2025) always takes the surest one, and every other that reaches the
    threshold: that is a share of one, which as many steps as the block has positions amount to.
    """
    ranked = surest(sure, len(sure))
    if params.commit_rule is CommitRule.STATIC_SCHEDULE:
        return ranked[:share]
    return [i for rank, i in enumerate(ranked) if rank < share or sure[i] >= params.threshold]


def write_llada(path: Path, sizes: Sizes) -> LladaOracle:
    """Llama's mathematics with as many key heads as query heads, under OLMo's names."""
    backbone: dict[str, Any] = dimensions(sizes) | {
        "num_key_value_heads": sizes.heads,
        "rms_norm_eps": 1e-5,
        "rope_parameters": rope(ROPE_THETA),
        "tie_word_embeddings": False,
    }
    config = {
        **FIELDS,
        "embedding_size": sizes.vocabulary,
        "eos_token_id": sizes.eos_ids[0],
        "max_sequence_length": sizes.positions,
        "n_heads": sizes.heads,
        "n_kv_heads": sizes.heads,
        "n_layers": sizes.layers,
        "vocab_size": sizes.vocabulary,
    }
    generation = {"eos_token_id": list(sizes.eos_ids), "block_size": sizes.block_length}
    model = randomised(LlamaForCausalLM(LlamaConfig(**backbone)), sizes)
    published = Published(config, generation)
    return LladaOracle(write_checkpoint(path, model, published, sizes, lambda own: renamed(own, NAMES)))
