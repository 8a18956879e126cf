"""The training network against transformers' Qwen3, and the exported checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from easel.demo.export import config_of, export
from easel.demo.model import DemoModel, ModelShape
from easel.demo.reference_loop import block_causal_mask
from easel.demo.run_state import STATE_FILE, RunState
from easel.demo.tokenizer import VOCABULARY, encode_prompt
from tests.demo.options import small_options


def small_shape(tied: bool) -> ModelShape:
    return ModelShape(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        head_dim=16,
        intermediate_size=48,
        tie_word_embeddings=tied,
    )


def qwen3(shape: ModelShape) -> Qwen3ForCausalLM:
    config = {
        k: v for k, v in config_of(shape).items() if k not in ("architectures", "model_type", "torch_dtype")
    }
    return Qwen3ForCausalLM(Qwen3Config(**config)).eval()


@pytest.mark.parametrize("tied", [False, True])
def test_its_logits_are_those_of_qwen3_with_a_block_causal_mask(tied: bool) -> None:
    torch.manual_seed(0)
    shape = small_shape(tied)
    model, reference = DemoModel(shape), qwen3(shape)
    reference.load_state_dict(model.state_dict())
    tokens, positions = torch.randint(0, 50, (2, 64)), torch.arange(64).expand(2, -1)
    allowed = block_causal_mask(64, 32).expand(2, -1, -1)
    with torch.no_grad():
        ours = model(tokens, positions, allowed)
        theirs = reference(input_ids=tokens, position_ids=positions, attention_mask=allowed[:, None]).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_an_exported_checkpoint_is_complete_and_holds_the_averaged_weights(tmp_path: Path) -> None:
    run = RunState.fresh(small_options(tmp_path))
    run.average.model.norm.weight.data.fill_(0.5)
    run.save(tmp_path / "run")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "stale").touch()
    export(tmp_path / "run" / STATE_FILE, folder)
    weights = load_file(folder / "model.safetensors")
    assert not (folder / "stale").exists()
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert (weights["model.norm.weight"] == 0.5).all()
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["block_size"]) == ("sdar", 32)
    assert config["vocab_size"] == len(VOCABULARY)
    loaded = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "sort cab"}]
    assert loaded.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == encode_prompt(
        "sort cab"
    )
    assert json.loads((folder / "generation_config.json").read_text())["confidence_threshold"] == 0.9
