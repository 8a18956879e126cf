import json
from typing import Any

import pytest

from easel.bench.harness.answers import Answer, BlockSeen, Tokens
from easel.bench.harness.events import Event


def read(*chunks: dict[str, Any] | str) -> Answer:
    answer = Answer()
    for index, chunk in enumerate(chunks):
        answer.take(Event("message", chunk if isinstance(chunk, str) else json.dumps(chunk)), float(index))
    answer.close()
    return answer


def delta(**content: str | None) -> dict[str, Any]:
    return {"choices": [{"delta": content, "finish_reason": None}]}


DONE = "[DONE]"
ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}


def test_chunks_without_text_are_none_where_a_server_knows_no_blocks() -> None:
    answer = read(ROLE, delta(content="a"), delta(content=None), delta(content="b"), DONE)
    assert (answer.text, answer.chunks, answer.error) == ("ab", (1.0, 3.0), "")


def test_a_block_without_text_is_still_a_block() -> None:
    finish = [{"steps": 3, "tokens": 4, "ms": 7.0}, {"steps": 1, "tokens": 1, "ms": 2.0}]
    last = delta(content="") | {"diffusion": {"finish": finish, "queue_ms": 5.0, "prefill_ms": 1.0}}
    answer = read(delta(content="a"), last, DONE)
    assert answer.chunks == (0.0, 1.0)
    assert answer.canvases is not None
    assert answer.canvases.blocks == (BlockSeen(3, 4, 0.007), BlockSeen(1, 1, 0.002))
    assert answer.canvases.steps == 4


def test_a_canvas_on_the_way_is_neither_text_nor_the_report() -> None:
    canvas = {"choices": [], "diffusion": {"canvas": {"step": 1}}}
    answer = read(canvas, delta(content="a"), DONE)
    assert (answer.chunks, answer.canvases) == ((1.0,), None)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "content"])
def test_thoughts_count_as_text(name: str) -> None:
    assert read(delta(**{name: "hm"}), DONE).text == "hm"


def test_a_completions_text_is_read() -> None:
    assert read({"choices": [{"text": "yes", "finish_reason": "stop"}]}).text == "yes"


def test_usage_tells_tokens_and_those_cached() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    assert read(delta(content="a"), {"choices": [], "usage": usage}, DONE).tokens == Tokens(9, 2, 4)
    assert read(
        {"choices": [], "usage": {"prompt_tokens": 9, "prompt_tokens_details": None}}
    ).tokens == Tokens(9, 0)


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([delta(content="a")], "ended early"),
        ([{"error": {"message": "dead"}}, DONE], "error in the stream"),
        (["{", DONE], "unreadable chunk"),
        ([{"choices": [3]}, DONE], "unreadable chunk"),
    ],
)
def test_a_stream_that_goes_wrong_says_how(chunks: list[dict[str, Any] | str], kind: str) -> None:
    assert read(*chunks).error == kind
