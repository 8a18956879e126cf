"""Small random checkpoints in the Hugging Face layout, for tests that need a real one to load."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

MASK_ID, EOS_ID, PAD_ID, USER_ID, ASSISTANT_ID = 0, 1, 2, 3, 4
SPECIAL_TOKENS = ("<|mask|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|user|>' if m['role'] == 'user' else '<|assistant|>' }}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|eos|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_config(
    *,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 8,
    layers: int = 2,
    tied: bool = True,
    vocab_size: int = 105,
    max_positions: int = 1024,
    eos_ids: Sequence[int] = (EOS_ID,),
) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=max_positions,
        tie_word_embeddings=tied,
        eos_token_id=list(eos_ids),
        pad_token_id=PAD_ID,
    )


def write_tiny_checkpoint(
    path: Path,
    config: Qwen3Config | None = None,
    *,
    block_length: int = 8,
    seed: int = 0,
    sharpness: float = 1.0,
) -> Qwen3ForCausalLM:
    """Write a random checkpoint to `path` and return the Hugging Face model it holds, in float32.

    Weights are drawn wider than the default, so that logits spread and near-ties are rare.
    `sharpness` multiplies the logits: 3 makes some positions sure and others not.
    """
    config = config or tiny_config()
    generator = torch.Generator().manual_seed(seed)
    model = Qwen3ForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(std=0.2, generator=generator)
        model.model.norm.weight.mul_(sharpness)
    model.save_pretrained(path)
    _mark_as_diffusion(path, block_length)
    tiny_tokenizer(config.vocab_size).save_pretrained(path)
    return model


def tiny_tokenizer(vocab_size: int = 105) -> PreTrainedTokenizerFast:
    """One token a character: the special ones, then printable ASCII and newline."""
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    symbols = [*SPECIAL_TOKENS, *characters][:vocab_size]
    vocabulary = {symbol: index for index, symbol in enumerate([*symbols, "<|unk|>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        mask_token="<|mask|>",
        unk_token="<|unk|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
    )


def _mark_as_diffusion(path: Path, block_length: int) -> None:
    file = path / "config.json"
    config = json.loads(file.read_text())
    config |= {
        "architectures": ["SDARForCausalLM"],
        "model_type": "sdar",
        "block_size": block_length,
        "mask_token_id": MASK_ID,
    }
    file.write_text(json.dumps(config, indent=2))
