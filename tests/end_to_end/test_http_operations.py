"""What operators and terminals see of a running cluster."""

import re

import httpx
import openai
import pytest
from typer.testing import CliRunner, Result

from easel.cluster.cli import app
from easel.cluster.lifecycle import RunningCluster
from tests.end_to_end.clients import MODEL, openai_client, user

pytestmark = pytest.mark.end_to_end


def get(cluster: RunningCluster, path: str) -> httpx.Response:
    return httpx.get(f"{cluster.base_url}{path}", timeout=10, trust_env=False)


def easel(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_cluster_is_healthy_and_ready(cluster: RunningCluster) -> None:
    assert get(cluster, "/health").json()["status"] == "ok"
    assert get(cluster, "/ready").status_code == 200


@pytest.mark.asyncio
async def test_the_model_is_listed(cluster: RunningCluster) -> None:
    async with openai_client(cluster.base_url) as client:
        models = [model.id async for model in client.models.list()]
        assert models == [MODEL]
        assert (await client.models.retrieve(MODEL)).owned_by == "easel"


@pytest.mark.asyncio
async def test_metrics_follow_what_is_served(cluster: RunningCluster) -> None:
    def blocks() -> float:
        lines = get(cluster, "/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("easel_blocks_total "))

    before = blocks()
    async with openai_client(cluster.base_url) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=user("count 100 by 3"))
    diffusion = completion.to_dict()["diffusion"]
    assert isinstance(diffusion, dict)
    assert blocks() - before == diffusion["blocks"]


@pytest.mark.asyncio
async def test_a_repeated_prompt_is_found_in_the_prefix_cache(cluster: RunningCluster) -> None:
    long_prompt = "sort " + "qwertyuiopasdfgh" * 8

    async def cached(client: openai.AsyncOpenAI) -> int:
        completion = await client.chat.completions.create(
            model=MODEL, messages=user(long_prompt), max_tokens=4
        )
        assert completion.usage is not None
        assert completion.usage.prompt_tokens_details is not None
        return completion.usage.prompt_tokens_details.cached_tokens or 0

    async with openai_client(cluster.base_url) as client:
        first, second = await cached(client), await cached(client)
    assert first == 0
    assert second >= 64


def test_an_unknown_path_has_openai_s_error_shape(cluster: RunningCluster) -> None:
    answer = get(cluster, "/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_path"


def test_easel_chat_prints_the_answer(cluster: RunningCluster) -> None:
    body = {"model": MODEL, "messages": user("sort zebra")}
    whole = httpx.post(
        f"{cluster.base_url}/v1/chat/completions", json=body, timeout=60, trust_env=False
    ).json()
    answer = easel("chat", "sort zebra", "--url", cluster.base_url)
    assert answer.exit_code == 0
    assert answer.output == whole["choices"][0]["message"]["content"] + "\n"


def test_easel_doctor_sees_the_running_cluster(cluster: RunningCluster) -> None:
    answer = easel("doctor", str(cluster.config.model), "--port", str(cluster.config.port))
    assert answer.exit_code == 0
    assert "Easel serves here: ok" in answer.output
    assert re.search(rf"^ *{cluster.config.port} +ok .*127\.0\.0\.1", answer.output, re.MULTILINE)
    assert "Ray (SchedulerActor" in answer.output  # Ray adds the method that runs
