"""What a stream of chunks says: text, when it came, usage, and what canvases it took."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from easel.bench.harness.events import Event

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BlockSeen:
    """What the server says of one committed block."""

    steps: int
    tokens: int
    seconds: float  # by the replica's clock


@dataclass(frozen=True, slots=True)
class CanvasReport:
    """The `diffusion` object at an answer's end."""

    blocks: tuple[BlockSeen, ...]
    queue_seconds: float
    prefill_seconds: float
    cached_tokens: int

    @property
    def steps(self) -> int:
        return sum(block.steps for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The `usage` object."""

    prompt: int
    output: int
    cached: int = 0


@dataclass(slots=True)
class Answer:
    """An answer as it comes. Times are those of the clock that `take` is told."""

    text: str = ""
    tokens: Tokens | None = None
    canvases: CanvasReport | None = None
    ended: bool = False
    error: str = ""  # its kind; "" while all is well
    detail: str = ""
    retry_after: float | None = None  # seconds, of a refusal that says so
    _chunks: list[tuple[float, bool]] = field(default_factory=list[tuple[float, bool]])  # (when, has text)

    @property
    def chunks(self) -> tuple[float, ...]:
        """When each block arrived; where the server knows no blocks, each chunk of text.

        A block may have no text, so where there are blocks every chunk counts.
        """
        if self.canvases is not None and len(self.canvases.blocks) == len(self._chunks):
            return tuple(at for at, _ in self._chunks)
        return tuple(at for at, has_text in self._chunks if has_text)

    def take(self, event: Event, at: float) -> None:
        """Read one event of a stream."""
        if event.data == "[DONE]":
            self.ended = True
            return
        try:
            chunk = cast(Json, json.loads(event.data))
            if event.name == "error" or "error" in chunk:
                self.fail("error in the stream", event.data)
                return
            self._chunk(chunk, at)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self.fail("unreadable chunk", f"{type(error).__name__}: {error} in {event.data[:200]}")

    def fail(self, kind: str, detail: str) -> None:
        """The first failure is the one that counts."""
        if not self.error:
            self.error, self.detail = kind, detail[:300]

    def close(self) -> None:
        """The stream is over: say so if it broke off."""
        if not self.ended:
            self.fail("ended early", "the stream ended without [DONE] or a finish_reason")

    def _chunk(self, chunk: Json, at: float) -> None:
        for choice in chunk.get("choices") or ():
            text = _text_of(choice)
            self.text += text
            self._chunks.append((at, bool(text)))
            self.ended = self.ended or choice.get("finish_reason") is not None
        if usage := chunk.get("usage"):
            self.tokens = _tokens(usage)
        if (diffusion := chunk.get("diffusion")) and "finish" in diffusion:
            self.canvases = _canvases(diffusion)


def _text_of(choice: Json) -> str:
    """Of a chat's delta or a completion; thoughts count as text, as some servers send them."""
    delta: Json = choice.get("delta") or choice
    return "".join(
        str(delta.get(name) or "") for name in ("reasoning_content", "reasoning", "content", "text")
    )


def _tokens(usage: Json) -> Tokens:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Tokens(int(usage["prompt_tokens"]), int(usage.get("completion_tokens", 0)), int(cached))


def _canvases(diffusion: Json) -> CanvasReport:
    blocks: Sequence[Json] = diffusion["finish"]
    return CanvasReport(
        tuple(BlockSeen(block["steps"], block["tokens"], block["ms"] / 1000) for block in blocks),
        diffusion.get("queue_ms", 0.0) / 1000,
        diffusion.get("prefill_ms", 0.0) / 1000,
        int(diffusion.get("cached_tokens", 0)),
    )
