"""What the gateway answers when it cannot do as asked, in OpenAI's shape.

ApiError
├── InvalidBody            400  the body is not JSON, or not one that Easel reads
├── InvalidField           400  a field's value is wrong
├── ContextLengthExceeded  400  prompt and output do not fit the model
├── InvalidApiKey          401
├── UnknownModel           404
├── BodyTooSlow            408
├── BodyTooLarge           413
├── UnsupportedBody        415  compressed, or not JSON
├── Overloaded             429  try again later
├── HeadersTooLarge        431
├── ClientGone             499  nobody is left to read the answer
├── Unavailable            503  no replica can run the request now
├── Interrupted            503  the request ended before its last block
└── InternalError          500  a bug, or a part of the cluster that failed unexpectedly
"""

from collections.abc import Sequence

from easel.cluster.errors import ClusterError

INVALID_REQUEST = "invalid_request_error"
LONGEST_VALUE_SHOWN = 80  # characters of an offending value that go into a message


class ApiError(ClusterError):
    """Root of what is answered with a status of 400 or more."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, object]:
        """The JSON that OpenAI's clients understand."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


class InvalidBody(ApiError):
    """The whole body is at fault, no single field."""

    def __init__(self, problem: str) -> None:
        super().__init__(400, f"The request body: {problem}", code="invalid_json")
        self.problem = problem


class InvalidField(ApiError):
    """A field's value is wrong; `problem` continues the sentence that its name begins."""

    def __init__(self, param: str, problem: str) -> None:
        super().__init__(400, f"{param} {problem}", param=param, code="invalid_value")
        self.problem = problem


class ContextLengthExceeded(ApiError):
    """The prompt, or the prompt and the tokens asked for, exceed what the model or a replica holds."""

    def __init__(self, param: str, prompt_tokens: int, output_tokens: int, limit: int) -> None:
        excess = prompt_tokens + output_tokens - limit
        message = (
            f"The limit is {limit} tokens, prompt and output together; the prompt has {prompt_tokens} tokens "
            f"and at least {output_tokens} of output are asked for, which is {excess} too many. "
            "Shorten the prompt or lower max_tokens."
        )
        super().__init__(400, message, param=param, code="context_length_exceeded")
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.limit = limit
        self.excess = excess


class InvalidApiKey(ApiError):
    """The key is missing or none of those configured. Does not repeat the key."""

    def __init__(self, given: bool) -> None:
        problem = "The API key is not a valid one" if given else "No API key was given"
        message = f"{problem}; send the header 'Authorization: Bearer <key>'."
        super().__init__(401, message, kind="authentication_error", code="invalid_api_key")
        self.given = given


class UnknownModel(ApiError):
    """No model of that name is served here."""

    def __init__(self, model: str, known: Sequence[str]) -> None:
        message = f"The model {shown(model)} is not served here; known models: {', '.join(known)}."
        super().__init__(404, message, param="model", code="model_not_found")
        self.model = model
        self.known = tuple(known)


class BodyTooSlow(ApiError):
    """The request's body did not arrive in time."""

    def __init__(self, limit_seconds: float) -> None:
        message = f"The request body did not arrive within {limit_seconds:g} s; send it faster, or send less."
        super().__init__(408, message, code="request_timeout")
        self.limit_seconds = limit_seconds


class BodyTooLarge(ApiError):
    """The request's body is larger than the gateway reads."""

    def __init__(self, limit: int) -> None:
        message = f"The request body exceeds {limit} bytes; send less, or raise the server's limit."
        super().__init__(413, message, code="request_too_large")
        self.limit = limit


class UnsupportedBody(ApiError):
    """The body is written in a way the gateway does not read; `header` says so."""

    def __init__(self, header: str, problem: str) -> None:
        super().__init__(415, f"{header} {problem}", param=header, code="unsupported_media_type")
        self.header = header
        self.problem = problem


class Overloaded(ApiError):
    """Admission refused the request for now; `code` says why."""

    def __init__(self, message: str, retry_after_seconds: float, code: str = "queue_full") -> None:
        super().__init__(429, message, "rate_limit_error", None, code, retry_after_seconds)


class HeadersTooLarge(ApiError):
    """The request's headers, together, are larger than the gateway takes."""

    def __init__(self, size: int, limit: int) -> None:
        message = (
            f"The request's headers have {size} bytes and the limit is {limit}; send fewer or shorter ones."
        )
        super().__init__(431, message, code="headers_too_large")
        self.size = size
        self.limit = limit


class ClientGone(ApiError):
    """The client has closed the connection; its work was cancelled."""

    def __init__(self) -> None:
        super().__init__(499, "The client closed the connection.", "cancelled", code="client_gone")


class Unavailable(ApiError):
    """The cluster cannot run the request now."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(503, message, "server_error", None, "unavailable", retry_after_seconds)


class Interrupted(ApiError):
    """A request ended before its last block, and not because the client wished so."""

    def __init__(self, request_id: str, reason: str) -> None:
        super().__init__(
            503, f"Request {request_id}: {reason}; try again.", "server_error", None, "interrupted"
        )
        self.request_id = request_id
        self.reason = reason


class InternalError(ApiError):
    """Something failed that should not; the server's log has the reason, the client does not."""

    def __init__(self) -> None:
        message = "The server failed to answer; its log says why. Trying again may help."
        super().__init__(500, message, "server_error", None, "internal_error")


def shown(value: object) -> str:
    """The value as a message may quote it: never longer than a line."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE_SHOWN else text[: LONGEST_VALUE_SHOWN - 1] + "…"
