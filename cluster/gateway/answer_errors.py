"""What is wrong with a wish to go on with an answer.

ApiError
├── UnknownAnswer      404  forgotten, never begun, or somebody else's
├── NotCancellable     400  only background answers are cancelled by request
├── AnswerMismatch     422  the body is not the one that the answer belongs to
├── KeyReused          422  an idempotency key came with another body
├── TooManyAnswers     429  this gateway drives as many background answers as it may
├── AnswerCancelled    499  somebody asked for its end
└── AnswerFailed       503  it ended in an error, which the journal has kept
"""

from easel.cluster.gateway.errors import ApiError, shown


class UnknownAnswer(ApiError):
    """No answer of that id can be read by this tenant."""

    def __init__(self, answer_id: str, param: str | None = None) -> None:
        message = (
            f"No answer {shown(answer_id)} is known here; it has expired or was never begun. "
            "Ask anew, without Last-Event-ID."
        )
        super().__init__(404, message, param=param, code="answer_not_found")
        self.answer_id = answer_id


class NotCancellable(ApiError):
    """The answer ends with its client's connection, and not otherwise."""

    def __init__(self, answer_id: str) -> None:
        message = f"The response {answer_id} was not created with background: true; close its connection."
        super().__init__(400, message, code="not_a_background_response")
        self.answer_id = answer_id


class AnswerMismatch(ApiError):
    """Only the request that began an answer can go on with it."""

    def __init__(self, answer_id: str) -> None:
        message = f"The answer {shown(answer_id)} belongs to another body; send the one that began it."
        super().__init__(422, message, param="Last-Event-ID", code="answer_mismatch")
        self.answer_id = answer_id


class KeyReused(ApiError):
    """An idempotency key stands for one body."""

    def __init__(self) -> None:
        message = "This Idempotency-Key came with another body before; use a new key for a new request."
        super().__init__(422, message, param="Idempotency-Key", code="idempotency_key_reused")


class TooManyAnswers(ApiError):
    """Background answers have no client that would hold them back, so their number is bounded."""

    def __init__(self, limit: int, retry_after_seconds: float) -> None:
        message = f"{limit} background responses are in progress here; try again later."
        super().__init__(429, message, "rate_limit_error", "background", "queue_full", retry_after_seconds)
        self.limit = limit


class AnswerCancelled(ApiError):
    """Somebody cancelled the answer."""

    def __init__(self, answer_id: str) -> None:
        super().__init__(499, f"The answer {answer_id} was cancelled.", "cancelled", code="cancelled")
        self.answer_id = answer_id


class AnswerFailed(ApiError):
    """The answer ended in an error, earlier or at another gateway; `detail` is what was kept of it."""

    def __init__(self, answer_id: str, detail: str) -> None:
        message = f"The answer {answer_id} failed: {detail or 'no reason was kept.'}"
        super().__init__(503, message, "server_error", code="failed")
        self.answer_id = answer_id
        self.detail = detail
