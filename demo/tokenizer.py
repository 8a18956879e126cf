"""The demo model's character tokenizer and its chat template."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, MASK, EOS, USER, ASSISTANT, SYSTEM, UNKNOWN = (
    "<|pad|>",
    "<|mask|>",
    "<|eos|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|unk|>",
)
SPECIAL = (PAD, MASK, EOS, USER, ASSISTANT, SYSTEM, UNKNOWN)
PRINTABLE = "\n" + "".join(chr(code) for code in range(0x20, 0x7F))
VOCABULARY = {token: index for index, token in enumerate((*SPECIAL, *PRINTABLE))}

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ '<|system|>' + message['content'] }}"
    "{%- elif message['role'] == 'assistant' -%}{{ '<|assistant|>' + message['content'] + '<|eos|>' }}"
    "{%- else -%}{{ '<|user|>' + message['content'] }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)


def build_tokenizer(model_max_length: int) -> PreTrainedTokenizerFast:
    """One token per character; decoding is exact concatenation."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        mask_token=MASK,
        eos_token=EOS,
        unk_token=UNKNOWN,
        extra_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
        chat_template=CHAT_TEMPLATE,
    )


def encode_prompt(content: str) -> list[int]:
    """What the chat template makes of one user turn, without the cost of rendering it."""
    return [VOCABULARY[USER], *encode(content), VOCABULARY[ASSISTANT]]


def encode(text: str) -> list[int]:
    return [VOCABULARY.get(char, VOCABULARY[UNKNOWN]) for char in text]


def decode(tokens: list[int]) -> str:
    """The text up to the first end of sequence."""
    names = list(VOCABULARY)
    end = tokens.index(VOCABULARY[EOS]) if VOCABULARY[EOS] in tokens else len(tokens)
    return "".join(names[token] for token in tokens[:end])
