"""Whatever can be written in terms of the OpenAPI document, or just beside it, gets a documented answer."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, cast

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.python.asgi import ASGIClient, get_client
from schemathesis.specs.openapi import checks

from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.auth import hash_of_key
from easel.cluster.gateway.settings import GatewaySettings, Sources, Tenant
from easel.scheduler.errors import DeadlineImpossible, QueueFull, TenantLimit
from easel.scheduler.request import Priority, Request
from tests.cluster.gateway.fake_answers import TIMES, FakeAnswerStore, ResumingBackend, SharedJournal
from tests.cluster.gateway.fakes import MODEL, Script, Ticks, blocks_of, byte_tokenizer, model_info, tokens_of

AnyTest = Callable[..., None]

CASES = 100  # of an operation; those without parameters have one
KEY = "key"
TENANT = Tenant("tenant", (hash_of_key(KEY),), Priority.INTERACTIVE)
SETTINGS = GatewaySettings(tenants=(TENANT,))
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}<|assistant|>"
REFUSALS = (
    QueueFull(9, 9, 1.0),
    TenantLimit("tenant", "requests", 4, 1.0),
    DeadlineImpossible(9.0, 1.0, 8.0),
)
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
UNAVAILABLE = 503  # the only status beyond 499 that a client may ever see


def script(request: Request) -> Script:
    """Refuses one request in eight, for every reason there is."""
    chance = int.from_bytes(hashlib.sha256(repr(request.prompt).encode()).digest()[:2]) % 24
    if chance < len(REFUSALS):
        return [REFUSALS[chance]]
    return blocks_of(request, tokens_of("text of three blocks"))


def application() -> FastAPI:
    ids = count()
    sources = Sources(Ticks(), wall=lambda: 1000.5, new_id=lambda: f"id{next(ids)}", new_seed=lambda: 4242)
    journal = SharedJournal()
    return build_gateway(
        ResumingBackend(script, journal=journal),
        model_info(max_model_tokens=4096),
        byte_tokenizer(TEMPLATE),
        SETTINGS,
        sources,
        FakeAnswerStore(journal, "gateway"),
        TIMES,
    )


APP = application()
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)
SCHEMA.config.phases.coverage.enabled = False  # random cases reach as far with a tenth of the requests
every_operation = cast(Callable[[AnyTest], AnyTest], SCHEMA.parametrize())


@pytest.fixture(scope="module")
def client() -> Iterator[ASGIClient]:
    with get_client(cast(Any, APP)) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


@pytest.fixture(scope="module")
def response_id(client: ASGIClient) -> str:
    """A response that can be fetched."""
    body = {"model": MODEL, "input": "hi", "store": True}
    answer = client.post("http://testserver/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


@every_operation
@settings(
    max_examples=CASES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
)
def test_every_request_gets_a_documented_answer(
    case: Case[Any], client: ASGIClient, response_id: str
) -> None:
    ask_for_what_there_is(case, response_id)
    response = case.call(session=client)
    assert response.status_code < 500 or response.status_code == UNAVAILABLE
    case.validate_response(response, checks=CHECKS)


def ask_for_what_there_is(case: Case[Any], response_id: str) -> None:
    """Random names end in a 404, which would hide what lies behind: most of them become known ones."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = MODEL
    for name, known in (("name", MODEL), ("response_id", response_id)):
        given = case.path_parameters.get(name)
        if isinstance(given, str) and len(given) % 3:
            case.path_parameters[name] = known
