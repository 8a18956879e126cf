"""Turns whatever went wrong into an ApiError, and an ApiError into an HTTP response."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from easel.cluster.errors import ClusterError
from easel.cluster.gateway.errors import (
    ApiError,
    ContextLengthExceeded,
    InternalError,
    InvalidField,
    Overloaded,
    Unavailable,
    shown,
)
from easel.scheduler.errors import (
    DeadlineImpossible,
    Draining,
    InvalidParameter,
    Refused,
    RequestTooLong,
    TenantLimit,
)

ERRORS_LISTED = 5  # of one invalid body
UNREAD = frozenset({408, 413, 431})  # the rest of the request would be taken for the next one's beginning
LOGGER = logging.getLogger("easel.gateway")


def api_error_of(error: BaseException, retry_after_seconds: float) -> ApiError:
    """The answer to an error of the gateway, of admission or of the cluster; the rest is a 500, logged."""
    match error:
        case ApiError():
            return error
        case InvalidParameter():
            return InvalidField(error.name, f"is {shown(error.value)}; it must be {error.expected}.")
        case RequestTooLong():
            output = error.tokens - error.prompt_tokens
            return ContextLengthExceeded("max_tokens", error.prompt_tokens, output, error.limit)
        case Refused():
            return Overloaded(str(error), error.retry_after_seconds, _refusal_code(error))
        case Draining() | ClusterError():
            return Unavailable(str(error), retry_after_seconds)
        case _:
            LOGGER.error("a request failed unexpectedly", exc_info=error)
            return InternalError()


def response_of(error: ApiError, also: Mapping[str, str] | None = None) -> Response:
    """The error in OpenAI's shape, with the headers that belong to its status, and others."""
    headers = dict(also or {})
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in UNREAD:
        headers["Connection"] = "close"
    # Escaped to ASCII: a message may quote text that no encoding can hold.
    return Response(json.dumps(error.body()), error.status, headers, "application/json")


def _refusal_code(error: Refused) -> str:
    match error:
        case TenantLimit():
            return "tenant_limit"
        case DeadlineImpossible():
            return "deadline_impossible"
        case _:
            return "queue_full"


def install_error_handlers(app: FastAPI, retry_after_seconds: float) -> None:
    """Every error of the application leaves it in OpenAI's shape."""

    async def on_known(_: Request, error: Exception) -> Response:
        return response_of(api_error_of(error, retry_after_seconds))

    async def on_invalid_body(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response_of(invalid_body(error.errors()))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return response_of(_routing_error(request, error), error.headers)

    for known in (ClusterError, InvalidParameter, RequestTooLong, Refused, Draining, Exception):
        app.add_exception_handler(known, on_known)
    app.add_exception_handler(RequestValidationError, on_invalid_body)
    app.add_exception_handler(HTTPException, on_http)


def invalid_body(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """One error that names the first wrong field and tells what is wrong with the first few."""
    listed = [(_field_of(error), _problem_of(error)) for error in errors[:ERRORS_LISTED]]
    param = listed[0][0]
    message = "; ".join(f"{name or 'the body'}: {problem}" for name, problem in listed)
    code = "unsupported_parameter" if errors[0]["type"] == "unsupported_field" else "invalid_value"
    return ApiError(400, f"{message}.", param=param or None, code=code)


def _field_of(error: Mapping[str, Any]) -> str:
    """The dotted path; validators of a whole object name the field in the error's context."""
    path = [str(part) for part in error["loc"][1:]]  # the first is where: body, query, path or header
    context: Mapping[str, str] = error.get("ctx", {})
    return ".".join([*path, context["field"]] if "field" in context else path)


def _problem_of(error: Mapping[str, Any]) -> str:
    if tuple(error["loc"]) == ("body",) and "ctx" not in error:
        return "a JSON object is needed, sent with the header Content-Type: application/json"
    return str(error["msg"])


def _routing_error(request: Request, error: HTTPException) -> ApiError:
    path, method = request.url.path, request.method
    if error.status_code == 404:
        return ApiError(404, f"No such path: {method} {path}.", code="unknown_path")
    if error.status_code == 405:
        return ApiError(405, f"{path} does not take {method}.", code="method_not_allowed")
    return ApiError(error.status_code, str(error.detail))
