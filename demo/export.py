"""Writes a trained model as a Hugging Face checkpoint: `python -m easel.demo.export STATE FOLDER`."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from easel.demo.model import ModelShape
from easel.demo.packing import BLOCK_LENGTH
from easel.demo.tokenizer import EOS, MASK, PAD, VOCABULARY, build_tokenizer

CONFIDENCE_THRESHOLD = 0.9


def config_of(shape: ModelShape) -> dict[str, Any]:
    """The `config.json` of an SDAR model of this shape."""
    return {
        **shape.as_dict(),
        "architectures": ["SDARForCausalLM"],
        "model_type": "sdar",
        "block_size": BLOCK_LENGTH,
        "mask_token_id": VOCABULARY[MASK],
        "eos_token_id": VOCABULARY[EOS],
        "pad_token_id": VOCABULARY[PAD],
        "bos_token_id": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "sliding_window": None,
        "use_sliding_window": False,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }


def generation_config() -> dict[str, Any]:
    return {
        "block_length": BLOCK_LENGTH,
        "steps": BLOCK_LENGTH,
        "commit_rule": "confidence_threshold",
        "confidence_threshold": CONFIDENCE_THRESHOLD,
        "do_sample": False,
        "eos_token_id": VOCABULARY[EOS],
        "mask_token_id": VOCABULARY[MASK],
        "pad_token_id": VOCABULARY[PAD],
    }


def export(state_file: Path, folder: Path) -> None:
    """Writes the averaged weights of a training state, in bfloat16, replacing `folder` as a whole."""
    state = torch.load(state_file, weights_only=True)
    shape = ModelShape(**state["shape"])
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state["average"].items()}
    if shape.tie_word_embeddings:
        del weights["lm_head.weight"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh.chmod(0o755)
    save_file(weights, fresh / "model.safetensors", metadata={"format": "pt"})
    (fresh / "model.safetensors").chmod(0o644)
    _write_json(fresh / "config.json", config_of(shape))
    _write_json(fresh / "generation_config.json", generation_config())
    build_tokenizer(shape.max_position_embeddings).save_pretrained(fresh)
    if folder.exists():
        shutil.rmtree(folder)
    fresh.rename(folder)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m easel.demo.export", description=__doc__)
    parser.add_argument("state", type=Path, help="state.pt of a training run")
    parser.add_argument("folder", type=Path, help="checkpoint folder to write")
    options = parser.parse_args()
    export(options.state, options.folder)
    print(f"wrote {options.folder}")


if __name__ == "__main__":
    main()
