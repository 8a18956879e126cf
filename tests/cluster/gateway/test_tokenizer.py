import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from easel.cluster.gateway.tokenizer import OFFLOAD_CHARACTERS, ChatTokenizer
from easel.demo.tokenizer import build_tokenizer, encode_prompt
from easel.worker.errors import CheckpointError
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


@pytest.mark.parametrize("own_class", ["SDARTokenizer", "Qwen2Tokenizer"])
async def test_a_checkpoints_own_tokenizer_class_is_neither_needed_nor_run(
    tmp_path: Path, own_class: str
) -> None:
    build_tokenizer(model_max_length=128).save_pretrained(tmp_path)
    _name_own_class(tmp_path, own_class)
    tokenizer = ChatTokenizer.load(tmp_path)
    assert tokenizer.decode(await tokenizer.encode_text("add 12+34")) == "add 12+34"


async def test_a_tokenizer_that_only_code_of_the_checkpoint_can_make_is_refused(tmp_path: Path) -> None:
    build_tokenizer(model_max_length=128).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    _name_own_class(tmp_path, "DreamTokenizer")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json.*code in a checkpoint is never run"):
        ChatTokenizer.load(tmp_path)


def _name_own_class(path: Path, name: str) -> None:
    """As published checkpoints do; the code ends the process that runs it."""
    file = path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config |= {"tokenizer_class": name, "auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}}
    file.write_text(json.dumps(config))
    (path / "tokenization_own.py").write_text("raise SystemExit('code of the checkpoint ran')\n")
