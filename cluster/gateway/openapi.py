"""The OpenAPI document: FastAPI's, with what the edge adds to every route: keys, headers, errors."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from easel.cluster.gateway.answer_ids import EVENT_HEADER, KEY_HEADER, MAX_KEY_CHARACTERS
from easel.cluster.gateway.auth import PROTECTED
from easel.cluster.gateway.openapi_answers import ANSWERS, SCHEMAS
from easel.cluster.gateway.settings import GatewaySettings
from easel.cluster.gateway.tenancy import DEADLINE_HEADER, MAX_DEADLINE_MS, PRIORITY_HEADER
from easel.scheduler.request import Priority

Schema = dict[str, Any]

OF_ANY_ROUTE: Final = (431,)
OF_API_ROUTES: Final = (400, 401, 404, 429, 503)
OF_BODIES: Final = (408, 413, 415, 422)
WITH_RETRY_AFTER: Final = (429, 503)
METHODS: Final = frozenset({"get", "post", "delete", "put", "patch"})
_VALIDATION_SCHEMAS: Final = (
    "HTTPValidationError",
    "ValidationError",
)  # FastAPI's own error shape, never sent


def install_openapi(app: FastAPI, settings: GatewaySettings) -> None:
    """Replace FastAPI's document, which is made when it is first asked for. To be called before that."""

    def document() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, settings.asks_for_keys)
        return app.openapi_schema

    app.openapi = document


def _document(app: FastAPI, asks_for_keys: bool) -> Schema:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components: Schema = document["components"]
    schemas: Schema = components["schemas"]
    for name in _VALIDATION_SCHEMAS:
        schemas.pop(name, None)
    schemas |= SCHEMAS
    components["responses"] = {str(status): _error_answer(status) for status in _all_statuses()}
    if asks_for_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, method, operation in _operations(document):
        _complete(path, method, operation, asks_for_keys)
    return document


def _operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    paths = cast(dict[str, dict[str, Schema]], document["paths"])
    for path, item in paths.items():
        yield from ((path, method, operation) for method, operation in item.items() if method in METHODS)


def _complete(path: str, method: str, operation: Schema, asks_for_keys: bool) -> None:
    if "requestBody" in operation:
        operation.setdefault("parameters", []).extend(_request_headers())
    if path in ANSWERS:
        operation["responses"]["200"]["content"] = ANSWERS[path]
    responses: Schema = operation["responses"]
    responses.pop("422", None)
    for status in _statuses(path, method, asks_for_keys):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    if asks_for_keys and path.startswith(PROTECTED):
        operation["security"] = [{"key": []}]


def _statuses(path: str, method: str, asks_for_keys: bool) -> Sequence[int]:
    api = OF_API_ROUTES if path.startswith(PROTECTED) else (503,) if path == "/ready" else ()
    keyed = [status for status in api if status != HTTPStatus.UNAUTHORIZED or asks_for_keys]
    return (*keyed, *(OF_BODIES if method == "post" else ()), *OF_ANY_ROUTE)


def _all_statuses() -> Sequence[int]:
    return sorted((*OF_ANY_ROUTE, *OF_API_ROUTES, *OF_BODIES))


def _error_answer(status: int) -> Schema:
    answer: Schema = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    if status in WITH_RETRY_AFTER:
        seconds = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
        answer["headers"] = {"Retry-After": seconds}
    return answer


def _request_headers() -> list[Schema]:
    classes = [priority.name.lower() for priority in Priority]
    deadline = {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS}
    key = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS, "pattern": "^[ -~]+$"}
    event = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,80}/[0-9]{1,6}([.][0-9]{1,6})*$"}
    return [
        _header(DEADLINE_HEADER, deadline, "Milliseconds within which the whole answer is of use."),
        _header(PRIORITY_HEADER, {"enum": classes}, "Class of the request; not sooner than its tenant's."),
        _header(KEY_HEADER, key, "Requests with the same key and body have the same answer."),
        _header(EVENT_HEADER, event, "`id` of the last event seen; the stream goes on after it."),
    ]


def _header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
