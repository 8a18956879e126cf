"""What the routes answer, as JSON schemas; the answers themselves are written without models, for speed."""

from typing import Any, Final

Schema = dict[str, Any]


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT: Final[Schema] = {"type": "string"}
_WHOLE: Final[Schema] = {"type": "integer"}
_NUMBER: Final[Schema] = {"type": "number"}
_ANY_OBJECT: Final[Schema] = {"type": "object"}
_EVENT: Final[Schema] = _object(data=_TEXT)  # of a stream; `event` and `id` where there is one
_FINISH: Final = _one_of("stop", "length")
_STATE: Final = _one_of("running", "finished", "failed", "cancelled")

SCHEMAS: Final[Schema] = {
    "Error": _object(
        error=_object(message=_TEXT, type=_TEXT, param=_or_null(_TEXT), code=_or_null(_TEXT))
        | {"additionalProperties": False}
    ),
    "Usage": _object(
        prompt_tokens=_WHOLE,
        completion_tokens=_WHOLE,
        total_tokens=_WHOLE,
        prompt_tokens_details=_object(cached_tokens=_WHOLE),
    ),
    "Diffusion": _object(
        blocks=_WHOLE, steps=_WHOLE, forwards=_WHOLE, tokens_per_forward=_NUMBER, seed=_WHOLE
    ),
    "ChatCompletion": _object(
        id=_TEXT,
        object=_one_of("chat.completion"),
        created=_WHOLE,
        model=_TEXT,
        choices=_list_of(
            _object(index=_WHOLE, message=_object(role=_TEXT, content=_TEXT), finish_reason=_FINISH)
        ),
        usage=_ref("Usage"),
        diffusion=_ref("Diffusion"),
    ),
    "Completion": _object(
        id=_TEXT,
        object=_one_of("text_completion"),
        created=_WHOLE,
        model=_TEXT,
        choices=_list_of(_object(index=_WHOLE, text=_TEXT, finish_reason=_FINISH)),
        usage=_ref("Usage"),
        diffusion=_ref("Diffusion"),
    ),
    "Response": _object(
        id=_TEXT,
        object=_one_of("response"),
        created_at=_WHOLE,
        status=_one_of("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
        model=_TEXT,
        output=_list_of(_object(id=_TEXT, type=_TEXT, role=_TEXT, content=_list_of(_ANY_OBJECT))),
        error=_or_null(_ANY_OBJECT),
        usage=_or_null(_ANY_OBJECT),
    ),
    "Model": _object(
        id=_TEXT,
        object=_one_of("model"),
        created=_WHOLE,
        owned_by=_TEXT,
        max_model_len=_WHOLE,
        family=_TEXT,
        block_length=_WHOLE,
    ),
    "ModelList": _object(object=_one_of("list"), data=_list_of(_ref("Model"))),
    "Status": _object(status=_TEXT),
    "Cluster": _object(
        time=_NUMBER,
        model=_TEXT,
        journal=_one_of("ok", "degraded", "off"),
        waiting=_WHOLE,
        lost_replicas=_WHOLE,
        replicas=_list_of(
            _object(id=_TEXT, state=_one_of("serving", "draining"), strip=_list_of(_ref("StepSample")))
        ),
        faults=_list_of(_object(time=_NUMBER, kind=_TEXT, replica=_or_null(_TEXT))),
        requests=_list_of(_object(id=_TEXT, state=_STATE, began=_NUMBER, seconds=_NUMBER)),
    ),
    "StepSample": _object(step=_WHOLE, refresh=_WHOLE, reuse=_WHOLE, predicted_ms=_NUMBER, actual_ms=_NUMBER),
    "Timeline": _object(
        id=_TEXT,
        state=_STATE,
        trace_id=_or_null(_TEXT),
        events=_list_of(_object(at=_NUMBER, kind=_TEXT)),
    ),
}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": _ref(name)}}


def _json_or_events(name: str) -> Schema:
    return _json(name) | {"text/event-stream": {"schema": _EVENT}}


ANSWERS: Final[dict[str, Schema]] = {
    "/v1/chat/completions": _json_or_events("ChatCompletion"),
    "/v1/completions": _json_or_events("Completion"),
    "/v1/responses": _json_or_events("Response"),
    "/v1/responses/{response_id}": _json_or_events("Response"),
    "/v1/responses/{response_id}/cancel": _json("Response"),
    "/v1/models": _json("ModelList"),
    "/v1/models/{name}": _json("Model"),
    "/health": _json("Status"),
    "/ready": _json("Status"),
    "/cluster": _json("Cluster"),
    "/cluster/requests/{request_id}": _json("Timeline"),
    "/metrics": {"text/plain": {"schema": _TEXT}},
}
