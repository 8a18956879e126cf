"""Errors of the scheduler. All carry the offending values.

SchedulerError
├── InvalidParameter   a request's field is out of range
├── RequestTooLong     the request can never fit, whatever else runs
├── QueueFull          admission refused; try later
├── UnknownRequest     the id is not known here
└── BrokenBooks        an internal invariant does not hold (a bug)
"""


class SchedulerError(Exception):
    """Root of the scheduler's errors."""


class InvalidParameter(SchedulerError):
    """A request's field is out of range."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name} is {value!r}; it must be {expected}.")
        self.name = name
        self.value = value
        self.expected = expected

    def __reduce__(self) -> tuple[type["InvalidParameter"], tuple[str, object, str]]:
        return type(self), (self.name, self.value, self.expected)


class RequestTooLong(SchedulerError):
    """The request can never fit: its tokens exceed what the model or one replica can hold."""

    def __init__(self, tokens: int, limit: int, prompt_tokens: int) -> None:
        super().__init__(
            f"{prompt_tokens} prompt tokens and the tokens asked for make {tokens}, "
            f"{tokens - limit} more than the limit of {limit}; shorten the prompt or lower max_tokens."
        )
        self.tokens = tokens
        self.limit = limit
        self.prompt_tokens = prompt_tokens

    def __reduce__(self) -> tuple[type["RequestTooLong"], tuple[int, int, int]]:
        return type(self), (self.tokens, self.limit, self.prompt_tokens)


class QueueFull(SchedulerError):
    """Admission refused the request because too many are waiting."""

    def __init__(self, waiting: int, limit: int, retry_after_seconds: float) -> None:
        super().__init__(
            f"{waiting} requests are waiting and the limit is {limit}; "
            f"try again in {retry_after_seconds:.1f} s."
        )
        self.waiting = waiting
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[type["QueueFull"], tuple[int, int, float]]:
        return type(self), (self.waiting, self.limit, self.retry_after_seconds)


class UnknownRequest(SchedulerError):
    """No request of that id is known here."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request {request_id!r} is not known here; it may have finished.")
        self.request_id = request_id

    def __reduce__(self) -> tuple[type["UnknownRequest"], tuple[str]]:
        return type(self), (self.request_id,)


class BrokenBooks(SchedulerError):
    """The page or slot accounting does not balance; a bug in Easel, please report it."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; this is a bug in Easel, please report it.")
        self.problem = problem

    def __reduce__(self) -> tuple[type["BrokenBooks"], tuple[str]]:
        return type(self), (self.problem,)
