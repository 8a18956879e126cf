"""Wrong input, as OpenAI's client sees it."""

from typing import Any

import openai
import pytest

from easel.cluster.lifecycle import RunningCluster
from easel.worker.model_info import read_model_info
from tests.end_to_end.clients import MODEL, openai_client, user

pytestmark = [pytest.mark.end_to_end, pytest.mark.asyncio]


async def refusal(cluster: RunningCluster, **fields: Any) -> openai.APIStatusError:
    body: dict[str, Any] = {"model": MODEL, "messages": user("add 12+34"), **fields}
    async with openai_client(cluster.base_url) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**body)
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"extra_body": {"diffusion": {"steps": 0}}}, "diffusion.steps"),
        ({"extra_body": {"diffusoin": {}}}, "diffusoin"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"messages": user("x" * 2000)}, "messages"),
    ],
    ids=str,
)
async def test_wrong_input_is_a_400_that_names_the_field(
    cluster: RunningCluster, fields: dict[str, Any], param: str, stream: bool
) -> None:
    error = await refusal(cluster, **fields, stream=stream)
    assert isinstance(error, openai.BadRequestError)
    assert error.param == param


async def test_a_prompt_that_is_too_long_learns_by_how_much(cluster: RunningCluster) -> None:
    error = await refusal(cluster, messages=user("x" * 2000))
    assert error.code == "context_length_exceeded"
    limit = read_model_info(cluster.config.model).max_model_tokens
    assert f"{2000 + 2 + 1 - limit} too many" in error.message


async def test_an_unknown_model_lists_the_known(cluster: RunningCluster) -> None:
    error = await refusal(cluster, model="gpt-9")
    assert isinstance(error, openai.NotFoundError)
    assert MODEL in error.message


async def test_the_cluster_serves_on_after_wrong_input(cluster: RunningCluster) -> None:
    await refusal(cluster, temperature=-1)
    async with openai_client(cluster.base_url) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=user("add 123+456"))
    assert completion.choices[0].message.content
