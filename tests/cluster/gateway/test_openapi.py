"""The document that clients are generated from says what the routes do."""

from collections.abc import Iterator
from typing import Any

import pytest

from easel.cluster.gateway.auth import PROTECTED
from easel.cluster.gateway.settings import GatewaySettings
from tests.cluster.gateway.fakes import gateway_app, get, saying

KEYED = GatewaySettings(api_keys=("key",))
GENERATION = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


def document(settings: GatewaySettings | None = None) -> dict[str, Any]:
    return gateway_app(saying("x"), settings=settings).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for operation in item.values():
            yield path, operation


@pytest.mark.asyncio
async def test_the_document_is_served() -> None:
    assert (await get(gateway_app(saying("x")), "/openapi.json")).json()["paths"].keys() >= {*GENERATION}


@pytest.mark.parametrize("path", GENERATION)
def test_a_generation_has_every_refusal_and_header_documented(path: str) -> None:
    operation = document(KEYED)["paths"][path]["post"]
    expected = {"200", "400", "401", "404", "408", "413", "415", "422", "429", "431", "503"}
    assert set(operation["responses"]) == expected
    assert {header["name"].lower() for header in operation["parameters"]} == {
        "x-easel-deadline-ms",
        "x-easel-priority",
        "idempotency-key",
        "last-event-id",
    }
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "$ref" in operation["requestBody"]["content"]["application/json"]["schema"]


def test_every_answer_has_a_schema() -> None:
    for path, operation in operations(document()):
        for content in operation["responses"]["200"]["content"].values():
            assert content["schema"], path


def test_every_refusal_has_the_error_s_shape() -> None:
    whole = document()
    for path, operation in operations(whole):
        for status, answer in operation["responses"].items():
            assert status == "200" or answer["$ref"] == f"#/components/responses/{status}", path
    for answer in whole["components"]["responses"].values():
        assert answer["content"]["application/json"]["schema"]["$ref"] == "#/components/schemas/Error"
    assert not whole["components"]["schemas"].keys() & {"HTTPValidationError", "ValidationError"}


def test_keys_are_documented_where_they_are_asked_for() -> None:
    keyed, free = document(KEYED), document()
    assert keyed["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert "securitySchemes" not in free["components"]
    for path, operation in operations(keyed):
        assert ("security" in operation) == path.startswith(PROTECTED)
        assert ("401" in operation["responses"]) == path.startswith(PROTECTED)
    assert all("401" not in operation["responses"] for _, operation in operations(free))


def test_the_ways_to_write_a_field_are_all_documented() -> None:
    schemas = document()["components"]["schemas"]
    content = schemas["Message"]["properties"]["content"]["anyOf"]
    prompt = schemas["CompletionBody"]["properties"]["prompt"]["anyOf"]
    stop = schemas["ChatBody"]["properties"]["stop"]["anyOf"]
    assert [one["type"] for one in content] == ["string", "array"]
    assert [one["type"] for one in prompt] == ["string", "array", "array"]
    assert [one["type"] for one in stop] == ["string", "array", "null"]
    assert schemas["ChatBody"]["properties"]["logprobs"]["enum"] == [False, None]
