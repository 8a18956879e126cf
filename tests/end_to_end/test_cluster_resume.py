"""Answers outlive the gateway that began them: the client asks again, and misses and repeats nothing."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from easel.cluster.lifecycle import RunningCluster
from tests.end_to_end.load import GATEWAY, eventually, kill, processes_named

pytestmark = [pytest.mark.end_to_end, pytest.mark.asyncio]

PROMPT = "count 137 by 8"
SLOWLY = {"temperature": 0.7, "seed": 5, "diffusion": {"threshold": 1.0}}  # one position a step
CHAT = {"model": "easel-demo", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 96} | SLOWLY
RESPONSE = {"model": "easel-demo", "input": PROMPT, "max_output_tokens": 96} | SLOWLY


def client(cluster: RunningCluster) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=cluster.base_url, timeout=60, trust_env=False)


def kill_the_gateway(cluster: RunningCluster) -> None:
    victim = processes_named(cluster.process.pid, GATEWAY)[0]
    kill(victim)
    eventually(lambda: not victim.is_running(), "the gateway's death")


async def back(cluster: RunningCluster) -> None:
    """Until a gateway answers and knows both replicas."""

    def answers() -> bool:
        try:
            return len(httpx.get(f"{cluster.base_url}/health", trust_env=False).json()["replicas"]) == 2
        except httpx.TransportError:
            return False

    await asyncio.to_thread(eventually, answers, "the gateway's return")


async def events(
    http: httpx.AsyncClient, method: str, path: str, **request: Any
) -> AsyncGenerator[tuple[str | None, dict[str, Any]], None]:
    """Server-sent events: id and data."""
    async with http.stream(method, path, **request) as response:
        response.raise_for_status()
        event_id: str | None = None
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            elif line.startswith("data: {"):
                yield event_id, json.loads(line.removeprefix("data: "))
            elif not line:
                event_id = None


def text_of(chunk: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


async def test_a_stream_goes_on_at_another_gateway(cluster: RunningCluster) -> None:
    path, body = "/v1/chat/completions", CHAT | {"stream": True}
    async with client(cluster) as http:
        whole = [text_of(chunk) async for _, chunk in events(http, "POST", path, json=body)]
    seen: list[str] = []
    last_id, answer_id = "", ""

    async def watch() -> None:
        nonlocal last_id, answer_id
        async with client(cluster) as http:
            async for event_id, chunk in events(http, "POST", path, json=body):
                last_id, answer_id = event_id or last_id, chunk["id"]
                seen.append(text_of(chunk))
                if len(seen) == 1:
                    kill_the_gateway(cluster)

    with pytest.raises(httpx.TransportError):
        await watch()
    assert 0 < len(seen) < len(whole)
    await back(cluster)
    async with client(cluster) as http:
        headers = {"Last-Event-ID": last_id}
        async for _, chunk in events(http, "POST", path, json=body, headers=headers):
            assert chunk["id"] == answer_id
            seen.append(text_of(chunk))
    assert "".join(seen) == "".join(whole)


async def test_a_response_in_the_background_is_finished_by_another_gateway(cluster: RunningCluster) -> None:
    async with client(cluster) as http:
        whole = (await http.post("/v1/responses", json=RESPONSE)).raise_for_status().json()
        begun = (
            (await http.post("/v1/responses", json=RESPONSE | {"background": True})).raise_for_status().json()
        )
    assert begun["status"] in ("queued", "in_progress")
    kill_the_gateway(cluster)
    await back(cluster)

    def completed() -> bool:
        found = httpx.get(f"{cluster.base_url}/v1/responses/{begun['id']}", trust_env=False).json()
        return found["status"] == "completed"

    await asyncio.to_thread(eventually, completed, "the response's end")
    async with client(cluster) as http:
        found = (await http.get(f"/v1/responses/{begun['id']}")).json()
        path = f"/v1/responses/{begun['id']}?stream=true&starting_after=4"
        rest = [event async for _, event in events(http, "GET", path)]
    assert found["output"][0]["content"] == whole["output"][0]["content"]
    assert [event["sequence_number"] for event in rest] == list(range(5, 5 + len(rest)))
    assert rest[-1]["type"] == "response.completed"


async def test_the_same_key_is_the_same_answer_before_and_after_a_death(cluster: RunningCluster) -> None:
    headers = {"Idempotency-Key": "the only one"}
    async with client(cluster) as http:
        asking = asyncio.ensure_future(http.post("/v1/chat/completions", json=CHAT, headers=headers))
        await asyncio.sleep(0.05)  # under way, or not even begun: both must do
        kill_the_gateway(cluster)
        await asyncio.gather(asking, return_exceptions=True)
    await back(cluster)
    async with client(cluster) as http:
        answers = [
            (await http.post("/v1/chat/completions", json=CHAT, headers=headers)).json() for _ in range(2)
        ]
        other = await http.post("/v1/chat/completions", json=CHAT | {"seed": 6}, headers=headers)
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[0]["id"] == answers[1]["id"]
    assert other.status_code == 422
