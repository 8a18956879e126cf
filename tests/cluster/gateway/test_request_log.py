"""One line of log for each answer: what it cost, and what was said only if that is asked for."""

import logging
from collections.abc import Mapping

import pytest

from easel.cluster.config_sections import TelemetrySection
from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.observation import Observation
from easel.cluster.gateway.request_spans import LOGGER
from easel.cluster.telemetry import Telemetry
from tests.cluster.gateway.fakes import CHAT, MODEL, byte_tokenizer, get, model_info, post, saying

pytestmark = pytest.mark.asyncio

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "a secret"}]}


async def logged(
    caplog: pytest.LogCaptureFixture, body: Mapping[str, object], *, log_prompts: bool = False
) -> dict[str, object]:
    observation = Observation(Telemetry(TelemetrySection(log_prompts=log_prompts)))
    app = build_gateway(saying("hello"), model_info(), byte_tokenizer(), observation=observation)
    with caplog.at_level(logging.INFO, LOGGER.name):
        await post(app, CHAT, body)
        await get(app, "/health")
    (record,) = (record for record in caplog.records if record.name == LOGGER.name)
    return vars(record)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_one_line_with_its_costs(caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    said = await logged(caplog, BODY | {"stream": stream})
    assert (said["message"], said["path"], said["status"]) == ("answered", CHAT, "200")
    assert (said["output_tokens"], said["blocks"], said["steps"], said["finish"]) == (5, 1, 2, ["stop"])
    assert said["prompt_tokens"] == len("a secret") + 2


async def test_a_refused_body_is_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    said = await logged(caplog, {"model": MODEL})
    assert said["status"] == "400"
    assert "output_tokens" not in said


async def test_what_was_said_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    said = await logged(caplog, BODY)
    assert not {"prompts", "answers"} & said.keys()
    assert "secret" not in str(said)
    assert "hello" not in str(said)


async def test_what_was_said_is_in_the_log_if_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    said = await logged(caplog, BODY | {"n": 2}, log_prompts=True)
    assert said["prompts"] == ["a secret"]
    assert said["answers"] == ["hello", "hello"]
