"""OpenAI's client for the cluster under test, and puzzles to ask it."""

import random

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletionUserMessageParam

from easel.demo.tasks import Task, TaskName, generate

MODEL = "easel-demo"


def openai_client(base_url: str) -> AsyncOpenAI:
    """A client that neither retries nor asks a proxy; use it as a context manager."""
    return AsyncOpenAI(
        base_url=f"{base_url}/v1",
        api_key="none is asked for",
        max_retries=0,
        timeout=120,
        http_client=DefaultAsyncHttpxClient(trust_env=False),
    )


def user(content: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": content}]


def puzzles(kind: TaskName, count: int, seed: int = 1) -> list[Task]:
    """Puzzles the model was never trained on."""
    rng = random.Random(f"{kind}/{seed}")
    return [generate(rng, kind, held_out=True) for _ in range(count)]
