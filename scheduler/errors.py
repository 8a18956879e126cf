"""Errors of the scheduler. All carry the offending values.

SchedulerError
├── InvalidParameter   a request's field is out of range
├── RequestTooLong     the request can never fit, whatever else runs
├── Refused            not now; `retry_after_seconds` says when to try again
│   ├── QueueFull            too many are waiting
│   ├── TenantLimit          one tenant asks for more than it may
│   └── DeadlineImpossible   the answer cannot be there in time
├── Draining           no more requests are taken here; it is about to stop
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


class Refused(SchedulerError):
    """Admission refused the request now; it may be sent again after `retry_after_seconds`."""

    retry_after_seconds: float


class QueueFull(Refused):
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


class TenantLimit(Refused):
    """The tenant has as many requests under way, or was given as many tokens, as it may."""

    def __init__(self, tenant: str, what: str, limit: int, retry_after_seconds: float) -> None:
        super().__init__(
            f"tenant {tenant!r} is at its limit of {limit} {what}; try again in {retry_after_seconds:.1f} s, "
            "or ask the operator for a higher limit."
        )
        self.tenant = tenant
        self.what = what
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[type["TenantLimit"], tuple[str, str, int, float]]:
        return type(self), (self.tenant, self.what, self.limit, self.retry_after_seconds)


class DeadlineImpossible(Refused):
    """The answer is predicted to take longer than its deadline leaves, so it is not begun."""

    def __init__(self, predicted_seconds: float, deadline_seconds: float, retry_after_seconds: float) -> None:
        super().__init__(
            f"the answer would take {predicted_seconds:.2f} s, its deadline leaves {deadline_seconds:.2f} s; "
            f"try again in {retry_after_seconds:.1f} s, lower max_tokens or allow more time."
        )
        self.predicted_seconds = predicted_seconds
        self.deadline_seconds = deadline_seconds
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[type["DeadlineImpossible"], tuple[float, float, float]]:
        return type(self), (self.predicted_seconds, self.deadline_seconds, self.retry_after_seconds)


class Draining(SchedulerError):
    """A replica, or the whole cluster, is about to stop: what runs goes on, nothing new is taken."""

    def __init__(self, who: str) -> None:
        super().__init__(f"{who} is about to stop and takes no more requests; try again elsewhere, or later.")
        self.who = who

    def __reduce__(self) -> tuple[type["Draining"], tuple[str]]:
        return type(self), (self.who,)


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
