"""Right answers, and the same answers however they are asked for, through OpenAI's client."""

import asyncio
import math

import pytest
from openai import AsyncOpenAI

from easel.cluster.lifecycle import RunningCluster
from easel.demo.evaluation import REQUIRED
from easel.demo.tasks import Task, TaskName, check
from tests.end_to_end.clients import MODEL, openai_client, puzzles, user

pytestmark = [pytest.mark.end_to_end, pytest.mark.asyncio]

PUZZLES = 24
NOISY = 5.0  # a temperature at which different noise means different text


async def answer(client: AsyncOpenAI, task: Task) -> str:
    completion = await client.chat.completions.create(model=MODEL, messages=user(task.prompt))
    return completion.choices[0].message.content or ""


async def noisy(client: AsyncOpenAI, seed: int) -> str:
    completion = await client.chat.completions.create(
        model=MODEL, messages=user("count 100 by 3"), temperature=NOISY, seed=seed, max_tokens=80
    )
    return completion.choices[0].message.content or ""


def fewest_right(count: int, accuracy: float) -> int:
    """What a model of this accuracy falls short of in one sample of a hundred."""
    below = 0.0
    for right in range(count + 1):
        below += math.comb(count, right) * accuracy**right * (1 - accuracy) ** (count - right)
        if below > 0.01:
            return right
    return count


@pytest.mark.parametrize("kind", list(TaskName))
async def test_generated_puzzles_are_answered_right(cluster: RunningCluster, kind: TaskName) -> None:
    tasks = puzzles(kind, PUZZLES)
    async with openai_client(cluster.base_url) as client:
        texts = await asyncio.gather(*(answer(client, task) for task in tasks))
    wrong = [
        (task.prompt, text) for task, text in zip(tasks, texts, strict=True) if not check(task.prompt, text)
    ]
    assert PUZZLES - len(wrong) >= fewest_right(PUZZLES, REQUIRED[kind]), wrong


@pytest.mark.parametrize("kind", list(TaskName))
async def test_a_stream_adds_up_to_the_whole_answer(cluster: RunningCluster, kind: TaskName) -> None:
    (task,) = puzzles(kind, 1, seed=2)
    async with openai_client(cluster.base_url) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=user(task.prompt))
        stream = await client.chat.completions.create(
            model=MODEL, messages=user(task.prompt), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content
    assert choices[0].delta.role == "assistant"
    assert choices[-1].finish_reason == whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_a_long_answer_comes_in_a_chunk_per_block(cluster: RunningCluster) -> None:
    async with openai_client(cluster.base_url) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=user("count 100 by 3"), stream=True
        )
        chunks = [chunk async for chunk in stream]
    diffusion = chunks[-1].to_dict()["diffusion"]
    assert isinstance(diffusion, dict)
    assert diffusion["blocks"] == len(chunks) >= 3


async def test_a_seeded_request_repeats_whatever_else_runs(cluster: RunningCluster) -> None:
    async with openai_client(cluster.base_url) as client:
        alone = await noisy(client, seed=7)
        crowd = [asyncio.create_task(noisy(client, seed)) for seed in range(100, 112)]
        amid = await asyncio.gather(*(noisy(client, seed=7) for _ in range(4)))
        others = await asyncio.gather(*crowd)
    assert set(amid) == {alone}
    assert len({alone, *others}) == 13


async def test_choices_differ_and_repeat_with_the_seed(cluster: RunningCluster) -> None:
    async def three() -> list[str | None]:
        completion = await client.chat.completions.create(
            model=MODEL, messages=user("count 100 by 3"), temperature=NOISY, seed=3, n=3, max_tokens=80
        )
        return [choice.message.content for choice in completion.choices]

    async with openai_client(cluster.base_url) as client:
        first, second = await three(), await three()
    assert first == second
    assert len(set(first)) == 3


async def test_a_stop_string_ends_an_answer_before_it(cluster: RunningCluster) -> None:
    async with openai_client(cluster.base_url) as client:
        (whole,) = (
            await client.chat.completions.create(model=MODEL, messages=user("count 100 by 3"))
        ).choices
        text = whole.message.content or ""
        stop = text[40:44]  # lies over or after a block's end
        (cut,) = (
            await client.chat.completions.create(model=MODEL, messages=user("count 100 by 3"), stop=stop)
        ).choices
    assert cut.message.content == text[: text.index(stop)]
    assert cut.finish_reason == "stop"


async def test_a_limit_ends_an_answer_at_that_many_tokens(cluster: RunningCluster) -> None:
    async with openai_client(cluster.base_url) as client:
        completion = await client.chat.completions.create(
            model=MODEL, messages=user("count 100 by 3"), max_tokens=21
        )
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 21


async def test_the_diffusion_dial_reaches_the_engine(cluster: RunningCluster) -> None:
    async def steps(**dial: object) -> int:
        completion = await client.chat.completions.create(
            model=MODEL, messages=user("count 100 by 3"), max_tokens=64, extra_body={"diffusion": dial}
        )
        diffusion = completion.to_dict()["diffusion"]
        assert isinstance(diffusion, dict)
        return max(block["steps"] for block in diffusion["finish"])

    async with openai_client(cluster.base_url) as client:
        assert await steps(threshold=1.0, steps=2) == 2
        assert await steps(commit_rule="static_schedule", steps=5) == 5


async def test_a_plain_completion_of_text_and_of_tokens_agree(cluster: RunningCluster) -> None:
    async with openai_client(cluster.base_url) as client:
        chat = await client.chat.completions.create(model=MODEL, messages=user("add 12+34"))
        text = await client.completions.create(model=MODEL, prompt="<|user|>add 12+34<|assistant|>")
    assert text.choices[0].text == chat.choices[0].message.content
