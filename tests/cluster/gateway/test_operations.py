import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from easel.cluster.errors import NoReplica
from easel.scheduler.request import Request
from tests.cluster.gateway.fakes import (
    CHAT,
    MAX_MODEL_TOKENS,
    MODEL,
    FakeBackend,
    Script,
    gateway_app,
    get,
    post,
    saying,
)

pytestmark = pytest.mark.asyncio

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def nothing(request: Request) -> Script:
    return []


@pytest.mark.parametrize(("journal", "status"), [("ok", "ok"), ("off", "ok"), ("degraded", "degraded")])
async def test_health_is_200_and_says_degraded_when_the_journal_is(journal: str, status: str) -> None:
    answer = await get(
        gateway_app(FakeBackend(nothing, state={"journal": journal, "replicas": 2})), "/health"
    )
    assert answer.status_code == 200
    assert answer.json() == {"status": status, "model": MODEL, "journal": journal, "replicas": 2}


async def test_health_is_200_even_when_the_cluster_cannot_be_asked() -> None:
    answer = await get(gateway_app(FakeBackend(nothing, state=NoReplica(1.0))), "/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"


async def test_ready_is_503_until_a_replica_can_take_work() -> None:
    backend = FakeBackend(nothing, is_ready=False)
    app = gateway_app(backend)
    before = await get(app, "/ready")
    backend.is_ready = True
    assert (before.status_code, before.headers["retry-after"]) == (503, "1")
    assert (await get(app, "/ready")).status_code == 200


async def test_the_model_is_listed_and_found_by_its_name() -> None:
    app = gateway_app(saying("x"))
    listed = (await get(app, "/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == [MODEL]
    one = (await get(app, f"/v1/models/{MODEL}")).json()
    assert one == listed["data"][0]
    assert (one["object"], one["max_model_len"], one["block_length"]) == ("model", MAX_MODEL_TOKENS, 8)


async def test_a_model_that_is_not_served_is_a_404_that_lists_the_known() -> None:
    answer = await get(gateway_app(saying("x")), "/v1/models/some/other")
    assert answer.status_code == 404
    assert "'some/other'" in answer.json()["error"]["message"]
    assert MODEL in answer.json()["error"]["message"]


async def test_metrics_count_requests_tokens_blocks_and_steps() -> None:
    app = gateway_app(saying("0123456789"))
    await post(app, CHAT, BODY)
    await post(app, CHAT, BODY | {"stream": True, "n": 2})
    await post(app, CHAT, {})
    await get(app, "/nowhere/at/all")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families((await get(app, "/metrics")).text)
        for sample in family.samples
    }
    assert samples[("easel_requests_total", *sorted((CHAT, "200")))] == 2
    assert samples[("easel_requests_total", *sorted((CHAT, "400")))] == 1
    assert samples[("easel_requests_total", *sorted(("other", "404")))] == 1
    assert samples[("easel_requests_in_flight",)] == 0
    assert samples[("easel_prompt_tokens_total",)] == 12
    assert samples[("easel_cached_tokens_total",)] == 9
    assert samples[("easel_output_tokens_total",)] == 30
    assert samples[("easel_blocks_total",)] == 6
    assert samples[("easel_steps_total",)] == 12
    assert samples[("easel_generations_cancelled_total",)] == 0
    assert samples[("easel_time_to_first_block_seconds_count",)] == 3
    assert samples[("easel_inter_block_seconds_count",)] == 3
    assert samples[("easel_queue_seconds_count",)] == 3
    assert samples[("easel_request_duration_seconds_count",)] == 3
    assert samples[("vllm:diffusion_num_committed_tokens_total",)] == 30
    # What `vllm bench serve` makes of the three.
    steps = samples[("vllm:diffusion_num_denoising_steps_total",)]
    canvas = samples[("vllm:diffusion_num_canvas_positions_total",)] / steps
    assert (canvas, steps - 30 / canvas) == (8, 12)


async def test_two_gateways_in_one_process_count_separately() -> None:
    first, second = gateway_app(saying("x")), gateway_app(saying("x"))
    await post(first, CHAT, BODY)
    assert re.search(r"^easel_blocks_total 1\.0$", (await get(first, "/metrics")).text, re.MULTILINE)
    assert re.search(r"^easel_blocks_total 0\.0$", (await get(second, "/metrics")).text, re.MULTILINE)
