from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from easel.cluster.gateway.tokenizer import OFFLOAD_CHARACTERS, ChatTokenizer
from easel.demo.tokenizer import build_tokenizer, encode_prompt
from tests.cluster.gateway.fakes import byte_tokenizer, tokens_of

pytestmark = pytest.mark.asyncio


async def test_a_tokenizer_is_read_from_a_checkpoint_directory(tmp_path: Path) -> None:
    saved: PreTrainedTokenizerFast = build_tokenizer(model_max_length=128)
    saved.save_pretrained(tmp_path)
    tokenizer = ChatTokenizer.load(tmp_path)
    prompt = await tokenizer.encode_chat([{"role": "user", "content": "add 12+34"}])
    assert prompt == tuple(encode_prompt("add 12+34"))
    assert tokenizer.decode(await tokenizer.encode_text("add 12+34")) == "add 12+34"


async def test_special_tokens_are_left_out_of_text_and_named_in_pieces() -> None:
    tokenizer = byte_tokenizer()
    assert tokenizer.decode((*tokens_of("a"), 0, 1)) == "a"
    assert [tokenizer.piece(token) for token in (*tokens_of("a"), 0, 1, 1)] == [
        "a",
        "<|eos|>",
        "<|mask|>",
        "<|mask|>",
    ]


async def test_spaces_are_decoded_as_they_are() -> None:
    tokenizer = byte_tokenizer()
    text = " it 's  spaced , oddly . "
    assert tokenizer.decode(await tokenizer.encode_text(text)) == text


async def test_a_long_text_is_tokenised_like_a_short_one() -> None:
    text = "é" * (OFFLOAD_CHARACTERS + 1)
    assert await byte_tokenizer().encode_text(text) == tokens_of(text)
