from typing import Any

import pytest

from easel.scheduler.request import Request
from tests.cluster.gateway.fakes import FakeBackend, Script, blocks_of, chunks_in, complete, saying, tokens_of

pytestmark = pytest.mark.asyncio


async def test_an_answer_has_the_shape_of_openai_s_completion() -> None:
    body = (await complete(saying("hello"))).json()
    assert (body["id"], body["object"]) == ("cmpl-id", "text_completion")
    assert body["choices"] == [{"index": 0, "text": "hello", "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"]["prompt_tokens"] == 2
    assert body["diffusion"]["blocks"] == 1


async def test_a_stream_sends_text_per_block() -> None:
    chunks = chunks_in((await complete(saying("0123456789"), stream=True)).text)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["01234567", "89"]
    assert chunks[-1]["usage"]["total_tokens"] == 12


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("ab", [tokens_of("ab")]),
        (["ab", "c"], [tokens_of("ab"), tokens_of("c")]),
        ([10, 11], [(10, 11)]),
        ([[10], [11, 12]], [(10,), (11, 12)]),
    ],
)
async def test_a_prompt_may_be_text_or_tokens_one_or_many(
    prompt: Any, prompts: list[tuple[int, ...]]
) -> None:
    backend = saying("x")
    assert (await complete(backend, prompt)).status_code == 200
    assert [request.prompt for request in backend.requests] == prompts


@pytest.mark.parametrize("prompt", ["", [], [[]], ["a", ""], [1.5], {"a": 1}, None, [True], [[1], None], 5])
async def test_a_prompt_of_another_kind_is_refused(prompt: object) -> None:
    answer = await complete(saying("x"), prompt)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


async def test_a_token_outside_the_vocabulary_is_refused() -> None:
    error = (await complete(saying("x"), [5, 261])).json()["error"]
    assert error["param"] == "prompt"
    assert "261" in error["message"]
    assert "0 to 260" in error["message"]


def echo_prompt(request: Request) -> Script:
    return blocks_of(request, [*request.prompt, *tokens_of(f"/{request.sampling.seed}")], length=64)


async def test_choices_are_ordered_by_prompt_and_each_prompt_is_answered_as_if_alone() -> None:
    both = (await complete(FakeBackend(echo_prompt), ["a", "b"], n=2, seed=5)).json()
    alone = (await complete(FakeBackend(echo_prompt), "b", n=2, seed=5)).json()
    texts = [choice["text"] for choice in both["choices"]]
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert [text[0] for text in texts] == ["a", "a", "b", "b"]
    assert texts[2:] == [choice["text"] for choice in alone["choices"]]
    assert both["usage"]["prompt_tokens"] == 2


async def test_more_choices_than_the_limit_are_refused() -> None:
    error = (await complete(saying("x"), ["a", "b"], n=33)).json()["error"]
    assert error["param"] == "n"
    assert "66" in error["message"]
    assert "64" in error["message"]
