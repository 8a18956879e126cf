"""Reads a streamed chat answer over HTTP: text per block, and the canvas after every step."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from types import TracebackType
from typing import Any, Self

import httpx

from easel.cluster.errors import ClusterError

Turn = dict[str, str]
CONNECT_SECONDS = 5.0


class ChatFailed(ClusterError):
    """The server could not be reached, or answered with an error."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"{url}: {problem}")
        self.url = url
        self.problem = problem


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What `easel chat` may ask for; None leaves it to the server."""

    model: str | None = None
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    steps: int | None = None
    threshold: float | None = None

    def fields(self) -> dict[str, Any]:
        """The request's fields, without those that are None."""
        diffusion = {"steps": self.steps, "threshold": self.threshold}
        named = {"temperature": self.temperature, "seed": self.seed, "max_tokens": self.max_tokens}
        chosen = {name: value for name, value in named.items() if value is not None}
        chosen_diffusion = {name: value for name, value in diffusion.items() if value is not None}
        return chosen | ({"diffusion": chosen_diffusion} if chosen_diffusion else {})


@dataclass(frozen=True, slots=True)
class Canvas:
    """The live block after one step. Lists are as long as the block."""

    block: int
    step: int
    first: int  # positions before this one belong to the prompt
    tokens: Sequence[str]
    decided: Sequence[bool]
    confidence: Sequence[float | None]
    seconds: float = 0.0  # since the answer was asked for

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Canvas":
        """A server's canvas; a newer server may say more of it."""
        names = {field.name for field in dataclass_fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in names})


@dataclass(frozen=True, slots=True)
class BlockText:
    """What a committed block added to the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """How the answer came about."""

    tokens: int
    blocks: int
    steps: int
    milliseconds_per_step: float


Part = Canvas | BlockText | Summary


class ChatClient:
    """A connection to one server. Use as a context manager."""

    def __init__(
        self, url: str, api_key: str, options: ChatOptions, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url
        self.options = options
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        # No limit on reading: an answer may wait in the queue.
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def model(self) -> str:
        """The model asked for, or the first one served. Raises ChatFailed."""
        if self.options.model is not None:
            return self.options.model
        try:
            answer = self._http.get("/v1/models")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        self._check(answer)
        return answer.json()["data"][0]["id"]

    def answer(self, messages: Sequence[Turn]) -> Iterator[Part]:
        """The parts of an answer as they come. Raises ChatFailed."""
        body = {
            "model": self.model(),
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_canvas": True},
            **self.options.fields(),
        }
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.is_error:
                    response.read()
                self._check(response)
                for line in response.iter_lines():
                    yield from self._parts(line)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _parts(self, line: str) -> Iterator[Part]:
        if not line.startswith("data: ") or line == "data: [DONE]":
            return
        chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            raise ChatFailed(self.url, str(chunk["error"]["message"]))
        for choice in chunk["choices"]:
            yield BlockText(choice["delta"].get("content", ""))
        diffusion = chunk.get("diffusion", {})
        if "canvas" in diffusion:
            yield Canvas.of(diffusion["canvas"])
        elif diffusion:
            yield Summary(
                chunk["usage"]["completion_tokens"],
                diffusion["blocks"],
                diffusion["steps"],
                diffusion["ms_per_step"],
            )

    def _check(self, response: httpx.Response) -> None:
        if not response.is_error:
            return
        try:
            problem = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            problem = "no Easel server answers here; is it another program's port?"
        raise ChatFailed(self.url, f"{problem} (status {response.status_code})")

    def _unreachable(self, error: httpx.HTTPError) -> ChatFailed:
        return ChatFailed(self.url, f"{error or type(error).__name__}; is `easel serve` running there?")
