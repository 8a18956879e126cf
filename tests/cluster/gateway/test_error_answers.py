import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from easel.cluster.errors import NoReplica, RetriesExhausted
from easel.scheduler.errors import DeadlineImpossible, Draining, QueueFull, RequestTooLong, TenantLimit
from easel.scheduler.request import FinishReason, Request
from tests.cluster.gateway.fakes import (
    CHAT,
    MODEL,
    FakeBackend,
    Script,
    block,
    byte_tokenizer,
    chat,
    client_of,
    events_in,
    gateway_app,
    get,
    post,
    saying,
    tokens_of,
)

pytestmark = pytest.mark.asyncio

HI = [{"role": "user", "content": "hi"}]


async def in_pieces(content: bytes, length: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), length):
        yield content[start : start + length]


def failing(error: Exception, after_blocks: int = 0) -> FakeBackend:
    def script(request: Request) -> Script:
        return [*(block(request, index, tokens_of("12345678")) for index in range(after_blocks)), error]

    return FakeBackend(script)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "retry_after"),
    [
        (QueueFull(9, 9, 2.3), 429, "rate_limit_error", "queue_full", "3"),
        (TenantLimit("acme", "requests", 4, 0.2), 429, "rate_limit_error", "tenant_limit", "1"),
        (DeadlineImpossible(9.0, 2.0, 7.0), 429, "rate_limit_error", "deadline_impossible", "7"),
        (NoReplica(5.0), 503, "server_error", "unavailable", "1"),
        (Draining("the cluster"), 503, "server_error", "unavailable", "1"),
        (RetriesExhausted("r", 3), 503, "server_error", "unavailable", "1"),
        (RequestTooLong(200, 100, 20), 400, "invalid_request_error", "context_length_exceeded", None),
        (RuntimeError("secret detail"), 500, "server_error", "internal_error", None),
    ],
)
async def test_a_refused_request_gets_the_status_of_its_reason(
    error: Exception, status: int, kind: str, code: str, retry_after: str | None, stream: bool
) -> None:
    answer = await chat(failing(error), stream=stream)
    body = answer.json()["error"]
    assert answer.status_code == status
    assert (body["type"], body["code"]) == (kind, code)
    assert answer.headers.get("retry-after") == retry_after
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "body", [{"\ud800": 1}, {"model": "\ud800", "messages": HI}, {"diffusion": {"\ud800": 1}}]
)
async def test_an_error_about_text_that_is_not_unicode_can_still_be_sent(body: Any) -> None:
    answer = await post(gateway_app(saying("x")), CHAT, body)
    assert answer.status_code == 400


async def test_an_unexpected_failure_is_logged_for_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "easel.gateway"):
        await chat(failing(RuntimeError("the reason")))
    assert "the reason" in caplog.text


async def test_a_failure_within_a_stream_is_its_last_event() -> None:
    answer = await chat(failing(NoReplica(5.0), after_blocks=2), stream=True)
    events = events_in(answer.text)
    assert answer.status_code == 200
    assert [name for name, _ in events] == [None, None, "error"]
    assert events[-1][1]["error"]["code"] == "unavailable"
    assert "5.0 s" in events[-1][1]["error"]["message"]


async def test_one_choice_s_failure_ends_the_others() -> None:
    def script(request: Request) -> Script:
        if request.request_id.endswith("-1"):
            return [NoReplica(1.0)]
        return [block(request, index, tokens_of("x")) for index in range(50)]

    backend = FakeBackend(script)
    answer = await chat(backend, n=3)
    assert answer.status_code == 503
    assert sorted(backend.cancelled) == ["chatcmpl-id-0", "chatcmpl-id-2"]


@pytest.mark.parametrize("finish", [None, FinishReason.CANCELLED])
async def test_a_request_that_ends_before_its_last_block_is_not_passed_off_as_whole(
    finish: FinishReason | None,
) -> None:
    def script(request: Request) -> Script:
        return [block(request, 0, tokens_of("x"), finish)]

    answer = await chat(FakeBackend(script))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "interrupted"


async def test_an_unknown_model_is_told_the_known_ones() -> None:
    answer = await post(gateway_app(saying("x")), CHAT, {"model": "gpt-9", "messages": HI})
    error = answer.json()["error"]
    assert answer.status_code == 404
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "'gpt-9'" in error["message"]
    assert MODEL in error["message"]


async def test_a_missing_model_is_refused_by_name() -> None:
    answer = await post(gateway_app(saying("x")), CHAT, {"messages": HI})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"


async def test_a_body_that_is_not_json_is_told_where() -> None:
    async with client_of(gateway_app(saying("x"))) as client:
        answer = await client.post(
            CHAT, content='{"model": oops}', headers={"content-type": "application/json"}
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] is None
    assert "character 10" in answer.json()["error"]["message"]


@pytest.mark.parametrize("content", [b"", b"[]", b'"text"', b"model=tiny", b"\xff\xfe"])
async def test_a_body_that_is_no_json_object_is_refused(content: bytes) -> None:
    async with client_of(gateway_app(saying("x"))) as client:
        answer = await client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_an_unknown_path_is_a_404_and_a_wrong_method_a_405() -> None:
    app = gateway_app(saying("x"))
    missing, wrong = await get(app, "/v1/nothing"), await get(app, CHAT)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_path")
    assert "/v1/nothing" in missing.json()["error"]["message"]
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


async def test_a_body_in_several_pieces_is_read_whole() -> None:
    content = b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}'

    async with client_of(gateway_app(saying("yes"))) as client:
        answer = await client.post(
            CHAT, content=in_pieces(content, 7), headers={"content-type": "application/json"}
        )
    assert answer.json()["choices"][0]["message"]["content"] == "yes"


async def test_a_model_without_a_chat_template_says_so_but_completes_text() -> None:
    app = gateway_app(saying("x"), tokenizer=byte_tokenizer(template=None))
    answer = await post(app, CHAT, {"model": MODEL, "messages": HI})
    assert answer.status_code == 400
    assert "no chat template" in answer.json()["error"]["message"]
    assert (await post(app, "/v1/completions", {"model": MODEL, "prompt": "hi"})).status_code == 200


async def test_messages_the_template_refuses_are_a_400_with_its_reason() -> None:
    messages = [*HI, {"role": "system", "content": "late"}]
    answer = await post(gateway_app(saying("x")), CHAT, {"model": MODEL, "messages": messages})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages"
    assert "system goes first" in answer.json()["error"]["message"]
