from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easel.scheduler.messages import CanvasSnapshot
from easel.scheduler.request import FinishReason, Request
from tests.cluster.gateway.fakes import (
    FRESH_SEED,
    MODEL,
    FakeBackend,
    Script,
    blocks_of,
    chat,
    chunks_in,
    saying,
    tokens_of,
)

pytestmark = pytest.mark.asyncio

STORY = "Once upon a time, naïve 🐈 sat."


async def test_an_answer_has_the_shape_of_openai_s_chat_completion() -> None:
    answer = await chat(saying("012345678"), seed=7)
    assert answer.status_code == 200
    assert answer.headers["x-easel-request-id"] == "chatcmpl-id"
    body = answer.json()
    assert {name: body[name] for name in ("id", "object", "created", "model")} == {
        "id": "chatcmpl-id",
        "object": "chat.completion",
        "created": 1000,
        "model": MODEL,
    }
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "012345678", "refusal": None}
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")


async def test_an_answer_says_what_it_cost_and_how_its_blocks_settled() -> None:
    body = (await chat(saying("012345678"), seed=7)).json()
    assert body["usage"] == {
        "prompt_tokens": len("u") + len("hi") + len("a"),
        "completion_tokens": 9,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    block = {"choice": 0, "steps": 2, "mean_entropy": 0.25, "ms": 10.0}
    assert body["diffusion"] == {
        "blocks": 2,
        "steps": 4,
        "forwards": 4,
        "tokens_per_forward": 2.25,
        "ms_per_step": 5.0,
        "prefill_ms": 2.0,
        "queue_ms": 4.0,
        "cached_tokens": 3,
        "tightened_blocks": 0,
        "preemptions": 0,
        "resumed": 0,
        "seed": 7,
        "finish": [block | {"block": 0, "tokens": 8}, block | {"block": 1, "tokens": 1}],
    }


async def test_a_block_that_had_nothing_to_decide_has_no_mean_entropy() -> None:
    def script(request: Request) -> Script:
        (event,) = blocks_of(request, tokens_of("x"))
        return [type(event)(request.request_id, 0, event.tokens, 1, float("nan"), 0.1, FinishReason.STOP)]

    body = (await chat(FakeBackend(script))).json()
    assert body["diffusion"]["finish"][0]["mean_entropy"] is None


async def test_a_stream_sends_one_chunk_per_committed_block() -> None:
    chunks = chunks_in((await chat(saying("0123456789abcdefghij"), stream=True)).text)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == [
        "01234567",
        "89abcdef",
        "ghij",
    ]
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks] == ["assistant", None, None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-id"}


async def test_the_last_chunk_of_a_stream_carries_what_the_whole_answer_carries() -> None:
    whole = (await chat(saying(STORY), seed=3)).json()
    chunks = chunks_in((await chat(saying(STORY), seed=3, stream=True)).text)
    assert all("usage" not in chunk and "diffusion" not in chunk for chunk in chunks[:-1])
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["diffusion"] == whole["diffusion"]


async def test_usage_on_request_comes_in_a_chunk_without_choices() -> None:
    options = {"include_usage": True}
    chunks = chunks_in((await chat(saying(STORY), stream=True, stream_options=options)).text)
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == len(STORY.encode())
    assert chunks[-1]["diffusion"]["blocks"] == len(chunks) - 1


async def test_usage_so_far_comes_with_every_chunk_for_clients_of_vllm() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = chunks_in((await chat(saying(STORY), stream=True, stream_options=options)).text)
    text = ""
    for chunk in chunks[:-1]:
        text += chunk["choices"][0]["delta"].get("content", "")
        assert chunk["usage"]["completion_tokens"] == len(text.encode())
    assert chunks[-1]["usage"] == chunks[-2]["usage"]


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(alphabet="abé🐈 ", min_size=1, max_size=40),
    length=st.integers(1, 9),
    stop=st.lists(st.text(alphabet="abé🐈 ", min_size=1, max_size=3), max_size=4),
)
async def test_a_streamed_text_is_the_whole_answer_s_text(text: str, length: int, stop: list[str]) -> None:
    whole = (await chat(saying(text, length=length), stop=stop)).json()["choices"][0]
    streamed = chunks_in((await chat(saying(text, length=length), stop=stop, stream=True)).text)
    choices = [choice for chunk in streamed for choice in chunk["choices"]]
    assert "".join(choice["delta"]["content"] for choice in choices) == whole["message"]["content"]
    assert choices[-1]["finish_reason"] == whole["finish_reason"]


async def test_a_character_split_between_two_blocks_arrives_whole() -> None:
    chunks = chunks_in((await chat(saying("abé", length=3), stream=True)).text)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["ab", "é"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_over_a_block_boundary_ends_the_answer_and_cancels_the_rest(stream: bool) -> None:
    backend = saying("0123456 STOP and never this, nor this")
    answer = await chat(backend, stop=["STOP"], stream=stream)
    if stream:
        chunks = chunks_in(answer.text)
        text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
        finish = chunks[-1]["choices"][0]["finish_reason"]
    else:
        choice = answer.json()["choices"][0]
        text, finish = choice["message"]["content"], choice["finish_reason"]
    assert (text, finish) == ("0123456 ", "stop")
    assert backend.cancelled == ["chatcmpl-id-0"]


async def test_a_stop_string_that_was_only_begun_is_part_of_the_answer() -> None:
    body = (await chat(saying("all but the ST", finish=FinishReason.LENGTH), stop="STOP")).json()
    assert body["choices"][0]["message"]["content"] == "all but the ST"
    assert body["choices"][0]["finish_reason"] == "length"


async def test_a_finished_request_is_not_cancelled() -> None:
    backend = saying("done")
    await chat(backend)
    assert backend.cancelled == []


def canvas_then_block(request: Request) -> Script:
    snapshot = CanvasSnapshot(
        request.request_id,
        block_index=0,
        step=1,
        tokens=(*tokens_of("4"), 1),
        decided=(True, False),
        confidence=(0.987654, 0.5),
        first=0,
    )
    return [snapshot, *blocks_of(request, tokens_of("42"))]


async def test_a_canvas_is_streamed_after_each_step_when_asked_for() -> None:
    backend = FakeBackend(canvas_then_block)
    options = {"include_canvas": True}
    chunks = chunks_in((await chat(backend, stream=True, stream_options=options)).text)
    assert backend.requests[0].snapshots
    assert chunks[0]["choices"] == []
    canvas = chunks[0]["diffusion"]["canvas"]
    assert canvas.pop("seconds") > 0.0
    assert canvas == {
        "choice": 0,
        "block": 0,
        "step": 1,
        "first": 0,
        "tokens": ["4", "<|mask|>"],
        "decided": [True, False],
        "confidence": [0.9877, 0.5],
    }
    assert chunks[1]["choices"][0]["delta"] == {"role": "assistant", "content": "42"}


async def test_no_canvas_is_asked_of_the_backend_otherwise() -> None:
    backend = saying("x")
    await chat(backend, stream=True)
    assert not backend.requests[0].snapshots


def echo_seed(request: Request) -> Script:
    return blocks_of(request, tokens_of(str(request.sampling.seed)), length=64)


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_are_drawn_with_different_seeds_that_depend_on_the_first(stream: bool) -> None:
    async def texts(**fields: Any) -> list[str]:
        answer = await chat(FakeBackend(echo_seed), stream=stream, **fields)
        if not stream:
            return [choice["message"]["content"] for choice in answer.json()["choices"]]
        found: dict[int, str] = {}
        for chunk in chunks_in(answer.text):
            choice = chunk["choices"][0]
            found[choice["index"]] = found.get(choice["index"], "") + choice["delta"]["content"]
        return [found[index] for index in sorted(found)]

    three = await texts(n=3, seed=11)
    assert three[0] == "11"
    assert len(set(three)) == 3
    assert await texts(n=3, seed=11) == three
    assert await texts(n=2, seed=11) == three[:2]


async def test_a_stream_of_several_choices_carries_totals_once_and_last() -> None:
    chunks = chunks_in((await chat(saying("0123456789"), n=3, stream=True)).text)
    assert ["usage" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["usage"]["completion_tokens"] == 30
    assert chunks[-1]["usage"]["prompt_tokens"] == 4
    assert chunks[-1]["diffusion"]["blocks"] == 6


async def test_an_answer_without_a_seed_names_the_one_it_drew() -> None:
    backend = saying("x")
    body = (await chat(backend)).json()
    assert body["diffusion"]["seed"] == FRESH_SEED
    assert backend.requests[0].sampling.seed == FRESH_SEED
