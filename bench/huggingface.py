"""The baseline: the same checkpoint in transformers, denoised by a plain loop without a cache."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from easel.demo.reference_loop import Forward, LoopSettings, generate
from easel.worker.model_info import ModelInfo

BACKBONE_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "max_position_embeddings",
    "tie_word_embeddings",
)


def load_backbone(path: Path, dtype: torch.dtype) -> Forward:
    """SDAR's weights have Qwen3's names, so transformers' Qwen3 runs them with a block-causal mask."""
    raw = json.loads((path / "config.json").read_text(encoding="utf-8"))
    rope = raw.get("rope_parameters") or {"rope_type": "default", "rope_theta": raw["rope_theta"]}
    config = Qwen3Config(**{field: raw[field] for field in BACKBONE_FIELDS}, rope_parameters=rope)
    model = Qwen3ForCausalLM(config)
    model.load_state_dict(load_file(path / "model.safetensors"), strict=not config.tie_word_embeddings)
    nn.Module.to(model, dtype=dtype)  # transformers' own `to` is not typed as a method
    model.eval()

    def forward(tokens: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        mask = allowed[:, None]
        return model(
            input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False
        ).logits.float()

    return forward


def answer_batch(forward: Forward, prompts: list[tuple[int, ...]], model: ModelInfo, threshold: float) -> int:
    """Denoise prompts of one length by the loop; returns output tokens, without end-of-sequence.

    Every forward serves all prompts that are not finished.
    """
    (eos,) = model.eos_token_ids
    settings = LoopSettings(model.mask_token_id, eos, model.block_length, threshold)
    made = generate(forward, torch.tensor(prompts), settings)
    return sum(len(one.tokens) - (eos in one.tokens) for one in made)
