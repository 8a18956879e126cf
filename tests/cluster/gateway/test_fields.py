from typing import Any

import pytest

from easel.cluster.gateway.fields import HARMLESS_CHAT, HARMLESS_COMPLETION, Effect, Harmless
from tests.cluster.gateway.fakes import CHAT, MODEL, chat, complete, gateway_app, post, saying

pytestmark = pytest.mark.asyncio


def accepted(table: Harmless) -> list[dict[str, Any]]:
    values = {name: ("anything",) if value is Effect.NONE else value for name, value in table.items()}
    return [{name: value} for name, all_of in values.items() for value in (None, *all_of)]


@pytest.mark.parametrize("fields", accepted(HARMLESS_CHAT), ids=str)
async def test_a_chat_field_that_asks_for_nothing_is_accepted(fields: dict[str, Any]) -> None:
    assert (await chat(saying("x"), **fields)).status_code == 200


@pytest.mark.parametrize("fields", accepted(HARMLESS_COMPLETION), ids=str)
async def test_a_completion_field_that_asks_for_nothing_is_accepted(fields: dict[str, Any]) -> None:
    assert (await complete(saying("x"), **fields)).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"presence_penalty": 0.5},
        {"frequency_penalty": -1},
        {"logit_bias": {"5": 10}},
        {"logprobs": True},
        {"top_logprobs": 2},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"response_format": {"type": "json_object"}},
        {"modalities": ["audio"]},
        {"repetition_penalty": 1.1},
        {"ignore_eos": True},
        {"store": True},
    ],
    ids=str,
)
async def test_a_field_easel_does_not_implement_is_refused_by_name(fields: dict[str, Any]) -> None:
    answer = await chat(saying("x"), **fields)
    error = answer.json()["error"]
    (name,) = fields
    assert answer.status_code == 400
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    assert "unsupported" in error["message"]


async def test_zero_logprobs_of_a_completion_is_not_taken_for_false() -> None:
    assert (await complete(saying("x"), logprobs=0)).json()["error"]["param"] == "logprobs"


@pytest.mark.parametrize(
    ("fields", "param", "hint"),
    [
        ({"temprature": 1}, "temprature", "the nearest known one is temperature"),
        ({"zebra": 1}, "zebra", "known fields: "),
        ({"diffusion": {"step": 1}}, "diffusion.step", "the nearest known one is steps"),
        ({"stream": True, "stream_options": {"canvas": True}}, "stream_options.canvas", "include_canvas"),
    ],
)
async def test_an_unknown_field_is_refused_by_name(fields: dict[str, Any], param: str, hint: str) -> None:
    answer = await chat(saying("x"), **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert hint in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"n": 0}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ["a", ""]}, "stop.1"),
        ({"stop": "x" * 1001}, "stop.0"),
        ({"stop": 5}, "stop"),
        ({"user": 5}, "user"),
        ({"user": "\ud800"}, "user"),
        ({"stop": "\ud800"}, "stop.0"),
        ({"seed": "5"}, "seed"),
        ({"diffusion": None}, "diffusion"),
        ({"diffusion": {"steps": 4097}}, "diffusion.steps"),
        ({"diffusion": {"commit_rule": "best"}}, "diffusion.commit_rule"),
        ({"diffusion": {"schedule": 3}}, "diffusion.schedule"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"seed": 5, "extra_body": {"seed": 6}}, "extra_body.seed"),
        ({"extra_body": 5}, "extra_body"),
    ],
    ids=str,
)
async def test_a_value_of_the_wrong_kind_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    backend = saying("x")
    answer = await chat(backend, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert backend.requests == []


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([{"role": "user"}], "messages.0.content"),
        ([{"role": "user", "content": None}], "messages.0.content"),
        ([{"role": "user", "content": 5}], "messages.0.content"),
        ([{"role": "user", "content": "\ud800"}], "messages.0.content.0.text"),
        ([{"role": "robot", "content": "hi"}], "messages.0.role"),
        ([{"role": "tool", "content": "hi"}], "messages.0.role"),
        ([{"role": "user", "content": "hi", "mood": "good"}], "messages.0.mood"),
        ([{"role": "assistant", "content": "hi", "tool_calls": [{}]}], "messages.0.tool_calls"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text"}]}],
            "messages.0.content.1.text",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages.0.content.0.image_url",
        ),
    ],
    ids=str,
)
async def test_a_wrong_message_is_refused_by_its_path(messages: object, param: str) -> None:
    answer = await post(gateway_app(saying("x")), CHAT, {"model": MODEL, "messages": messages})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": "hi"}] * 4097, "messages"),
        ([5] * 100_000, "messages.0"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}] * 1025}], "messages.0.content"),
        ([{"role": "user", "content": [5] * 1000}] * 1000, "messages.0.content.0"),
    ],
    ids=["messages", "no messages", "parts", "no parts"],
)
async def test_more_than_anyone_needs_is_refused_at_the_first_wrong_one(messages: object, param: str) -> None:
    answer = await post(gateway_app(saying("x")), CHAT, {"model": MODEL, "messages": messages})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert len(answer.content) < 1000


async def test_too_many_prompts_are_refused() -> None:
    answer = await complete(saying("x"), prompt=["hi"] * 1025)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


async def test_a_name_as_long_as_a_body_is_not_repeated_in_full() -> None:
    answer = await chat(saying("x"), **{"z" * 100_000: 1})
    assert answer.status_code == 400
    assert len(answer.content) < 1000


async def test_the_same_value_in_extra_body_and_at_the_top_is_fine() -> None:
    assert (await chat(saying("x"), seed=5, extra_body={"seed": 5})).status_code == 200


async def test_several_wrong_fields_are_told_at_once() -> None:
    error = (await chat(saying("x"), temperature="hot", seed="5")).json()["error"]
    assert "temperature" in error["message"]
    assert "seed" in error["message"]
