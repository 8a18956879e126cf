from typing import Any

import pytest

from easel.cluster.gateway.params import choice_seed
from easel.scheduler.request import MAX_SEED, CommitRule, DiffusionParams, SamplingParams, Schedule
from tests.cluster.gateway.fakes import (
    CHAT,
    MAX_MODEL_TOKENS,
    MODEL,
    chat,
    gateway_app,
    model_info,
    post,
    saying,
    tokens_of,
)

pytestmark = pytest.mark.asyncio


async def test_what_a_body_leaves_out_is_the_model_s_default() -> None:
    backend = saying("x")
    defaults = DiffusionParams(steps=5, commit_rule=CommitRule.ENTROPY_BOUND, entropy_bound=0.1)
    model = model_info(temperature=0.4, top_k=9, top_p=0.8, max_output_tokens=12, diffusion=defaults)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "seed": 1}
    await post(gateway_app(backend, model), CHAT, body)
    assert backend.requests[0].sampling == SamplingParams(12, temperature=0.4, top_k=9, top_p=0.8, seed=1)
    assert backend.requests[0].diffusion == defaults


async def test_what_a_body_names_reaches_the_request() -> None:
    backend = saying("x")
    diffusion = {
        "steps": 3,
        "commit_rule": "static_schedule",
        "threshold": 0.5,
        "entropy_bound": 1,
        "schedule": "cosine",
        "stop_entropy": 0.01,
    }
    answer = await chat(
        backend, max_tokens=6, temperature=1, top_p=0.5, top_k=4, seed=9, user="u", diffusion=diffusion
    )
    assert answer.status_code == 200
    request = backend.requests[0]
    assert request.sampling == SamplingParams(6, temperature=1.0, top_k=4, top_p=0.5, seed=9)
    assert request.diffusion == DiffusionParams(
        3, CommitRule.STATIC_SCHEDULE, 0.5, 1.0, Schedule.COSINE, stop_entropy=0.01
    )


async def test_fields_under_extra_body_count_as_if_at_the_top() -> None:
    backend = saying("x")
    await chat(backend, extra_body={"top_k": 4, "diffusion": {"steps": 3}})
    assert backend.requests[0].sampling.top_k == 4
    assert backend.requests[0].diffusion.steps == 3


async def test_max_completion_tokens_is_the_newer_name_of_max_tokens() -> None:
    backend = saying("x")
    await chat(backend, max_completion_tokens=6)
    assert backend.requests[0].sampling.max_tokens == 6


async def test_without_max_tokens_the_output_is_as_long_as_fits() -> None:
    backend = saying("x")
    await chat(backend, "x" * 50)
    assert backend.requests[0].sampling.max_tokens == MAX_MODEL_TOKENS - 52


@pytest.mark.parametrize(
    ("characters", "fields", "param", "excess"),
    [
        (MAX_MODEL_TOKENS, {}, "messages", 3),
        (20, {"max_tokens": 43}, "max_tokens", 1),
        (20, {"max_completion_tokens": 100}, "max_tokens", 58),
    ],
)
async def test_a_request_too_long_for_the_model_learns_by_how_much(
    characters: int, fields: dict[str, Any], param: str, excess: int
) -> None:
    backend = saying("x")
    answer = await chat(backend, "x" * characters, **fields)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert f"{excess} too many" in error["message"]
    assert f"limit is {MAX_MODEL_TOKENS}" in error["message"]
    assert f"prompt has {characters + 2} tokens" in error["message"]
    assert backend.requests == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 11}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"diffusion": {"steps": 0}}, "diffusion.steps"),
        ({"diffusion": {"threshold": 1.5}}, "diffusion.threshold"),
        ({"diffusion": {"entropy_bound": -1}}, "diffusion.entropy_bound"),
        ({"diffusion": {"stop_entropy": -1}}, "diffusion.stop_entropy"),
    ],
)
async def test_a_value_out_of_range_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    backend = saying("x")
    answer = await chat(backend, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert "must be" in answer.json()["error"]["message"]
    assert backend.requests == []


@pytest.mark.parametrize("value", [10**100 - 1, 1 - 10**100, 1e308, -1e-308])
@pytest.mark.parametrize(
    "field", ["max_tokens", "seed", "n", "temperature", "top_p", "diffusion.steps", "diffusion.stability"]
)
async def test_a_huge_number_is_a_400_that_names_the_field(field: str, value: float) -> None:
    group, _, name = field.rpartition(".")
    answer = await chat(saying("x"), **({group: {name: value}} if group else {field: value}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize("top_k", [261, 10**99])
async def test_a_top_k_beyond_the_vocabulary_keeps_all_of_it(top_k: int) -> None:
    backend = saying("x")
    await chat(backend, top_k=top_k)
    assert backend.requests[0].sampling.top_k == 261


async def test_the_prompt_is_what_the_chat_template_makes_of_the_messages() -> None:
    backend = saying("x")
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "three", "refusal": None, "tool_calls": []},
        {"role": "user", "content": "four", "name": "Ann"},
    ]
    await post(gateway_app(backend), CHAT, {"model": MODEL, "messages": messages})
    system, user, assistant = 4, 2, 3
    assert backend.requests[0].prompt == (
        *(system, *tokens_of("be brief")),
        *(user, *tokens_of("one two")),
        *(assistant, *tokens_of("three")),
        *(user, *tokens_of("four")),
        assistant,
    )


async def test_choice_seeds_are_valid_and_differ() -> None:
    seeds = [choice_seed(MAX_SEED, choice) for choice in range(64)]
    assert seeds[0] == MAX_SEED
    assert len(set(seeds)) == 64
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
