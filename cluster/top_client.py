"""Reads GET /cluster of a running cluster into figures for a terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from easel.cluster.errors import ClusterError

TIMEOUT_SECONDS = 5.0


class WatchFailed(ClusterError):
    """The server could not be reached, or answered with an error."""

    def __init__(self, url: str, problem: str, *, passing: bool) -> None:
        """`passing`: asking again may help, as while the scheduler is being restarted."""
        super().__init__(f"{url}: {problem}")
        self.url = url
        self.problem = problem
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a replica."""

    refresh: int  # tokens
    reuse: int
    predicted_ms: float
    actual_ms: float

    @property
    def refresh_share(self) -> float:
        """Of its tokens."""
        return self.refresh / max(1, self.refresh + self.reuse)


@dataclass(frozen=True, slots=True)
class Replica:
    """One worker replica."""

    id: str
    state: str
    slots: int
    slots_used: int
    pages: int
    pages_available: int
    waiting: int
    policy_epoch: int
    policy_age_seconds: float
    steps_per_block: float
    cost_error: float
    committed_tokens: int
    preemptions: int
    strip: tuple[Step, ...]  # oldest first


@dataclass(frozen=True, slots=True)
class Answer:
    """One recent request of the caller's tenant."""

    id: str
    state: str
    began: float  # Unix seconds
    seconds: float
    blocks: int
    tokens: int
    steps: int
    replica: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong, or came back."""

    time: float  # Unix seconds
    kind: str
    replica: str | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster at one moment."""

    time: float  # Unix seconds
    model: str
    journal: str
    waiting: int
    lost_replicas: int
    replicas: tuple[Replica, ...]
    faults: tuple[Fault, ...]  # oldest first
    answers: tuple[Answer, ...]  # newest first


class TopClient:
    """A connection to one server. Use as a context manager."""

    def __init__(self, url: str, api_key: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=TIMEOUT_SECONDS, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def cluster(self) -> Cluster:
        """The cluster as it is now. Raises WatchFailed."""
        try:
            answer = self._http.get("/cluster")
        except httpx.HTTPError as error:
            problem = f"{error or type(error).__name__}; is `easel serve` running there?"
            raise WatchFailed(self.url, problem, passing=True) from error
        try:
            fields: dict[str, Any] = answer.json()
            if answer.is_error:
                passing = answer.status_code in (429, 503)
                raise WatchFailed(self.url, str(fields["error"]["message"]), passing=passing)
            return cluster_of(fields)
        except (ValueError, KeyError, TypeError) as error:
            problem = f"no Easel server answers here (status {answer.status_code}); is it another program's?"
            raise WatchFailed(self.url, problem, passing=False) from error


def cluster_of(fields: Mapping[str, Any]) -> Cluster:
    """What is known of the answer's fields; those that a newer server adds are passed over.

    Raises KeyError or TypeError for what is no such answer.
    """
    return Cluster(
        time=fields["time"],
        model=fields["model"],
        journal=fields["journal"],
        waiting=fields["waiting"],
        lost_replicas=fields["lost_replicas"],
        replicas=tuple(_replica(one) for one in fields["replicas"]),
        faults=tuple(Fault(one["time"], one["kind"], one["replica"]) for one in fields["faults"]),
        answers=tuple(_known(Answer, one) for one in fields["requests"]),
    )


def _replica(fields: Mapping[str, Any]) -> Replica:
    return _known(Replica, {**fields, "strip": tuple(_known(Step, step) for step in fields["strip"])})


def _known(kind: Any, fields: Mapping[str, Any]) -> Any:
    return kind(**{name: fields[name] for name in kind.__dataclass_fields__})
