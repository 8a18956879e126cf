"""The character tokenizer and the chat template."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from easel.demo.tokenizer import EOS, PRINTABLE, VOCABULARY, build_tokenizer, decode, encode, encode_prompt


def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(512)


def test_every_printable_character_is_one_token_and_decodes_to_itself() -> None:
    made = tokenizer()
    tokens = made.encode(PRINTABLE, add_special_tokens=False)
    assert tokens == encode(PRINTABLE)
    assert made.decode(tokens) == PRINTABLE


def test_nothing_is_inserted_between_characters_or_stripped_at_the_ends() -> None:
    text = "  a ,b.  c !\n"
    assert tokenizer().decode(encode(text)) == text


def test_an_unknown_character_becomes_the_unknown_token() -> None:
    assert tokenizer().encode("é", add_special_tokens=False) == [VOCABULARY["<|unk|>"]]


def test_the_chat_template_makes_the_prompt_the_model_was_trained_on() -> None:
    rendered = tokenizer().apply_chat_template(
        [{"role": "user", "content": "sort cab"}], add_generation_prompt=True, return_dict=False
    )
    assert rendered == encode_prompt("sort cab")


def test_the_chat_template_closes_an_assistant_turn_with_eos() -> None:
    rendered = tokenizer().apply_chat_template(
        [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a"},
        ],
        tokenize=False,
    )
    assert rendered == "<|system|>s<|user|>u<|assistant|>a<|eos|>"


def test_decoding_stops_at_the_first_end_of_sequence() -> None:
    assert decode([*encode("ab"), VOCABULARY[EOS], *encode("c")]) == "ab"
