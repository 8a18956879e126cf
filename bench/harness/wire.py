"""The bodies that are sent: plain OpenAI, unless a field of Easel's is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from easel.bench.harness.errors import WrongOption
from easel.bench.harness.workloads import Message


class Endpoint(StrEnum):
    """The routes that a load can use."""

    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self is Endpoint.CHAT else "/v1/completions"


@dataclass(frozen=True, slots=True)
class BodyPlan:
    """What every body has."""

    model: str
    endpoint: Endpoint = Endpoint.CHAT
    temperature: float | None = 0.0  # None: the server's own
    usage: bool = True  # ask for usage at the stream's end, as OpenAI's servers give it only then
    thresholds: tuple[float, ...] = ()  # Easel: confidence that decides a position, one drawn per request
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def body(self, messages: Sequence[Message], max_tokens: int | None, rng: Random) -> dict[str, Any]:
        """A request's JSON. The completions route gets what was said as lines of text."""
        body: dict[str, Any] = {"model": self.model, "stream": True}
        if self.endpoint is Endpoint.CHAT:
            body["messages"] = list(messages)
        else:
            body["prompt"] = "\n".join(message["content"] for message in messages)
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.usage:
            body["stream_options"] = {"include_usage": True}
        if self.thresholds:
            body["diffusion"] = {"threshold": rng.choice(self.thresholds)}
        return body | self.extra


def parse_thresholds(text: str) -> tuple[float, ...]:
    """Numbers between 0 and 1, separated by commas. Raises WrongOption."""
    try:
        values = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        values = (-1.0,)
    if any(not 0.0 <= value <= 1.0 for value in values):
        raise WrongOption("--thresholds", f"{text!r} must be numbers between 0 and 1, such as 0.9,1.0.")
    return values
