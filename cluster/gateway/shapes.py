"""The parts in which a chat answer and a plain completion differ."""

from typing import Protocol

from easel.cluster.gateway.choice import Choice, TextDelta
from easel.cluster.gateway.statistics import Json


class Shape(Protocol):
    """How one route writes ids, choices and chunks."""

    prompt_field: str  # what an error about the prompt names
    id_prefix: str
    whole_object: str
    chunk_object: str

    def whole(self, choice: Choice) -> Json:
        """A finished choice."""
        ...

    def chunk(self, delta: TextDelta) -> Json:
        """What one block added to a choice."""
        ...


class ChatShape:
    """POST /v1/chat/completions."""

    prompt_field = "messages"
    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def whole(self, choice: Choice) -> Json:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {"index": choice.index, "message": message, "logprobs": None, "finish_reason": choice.finish}

    def chunk(self, delta: TextDelta) -> Json:
        content = {"content": delta.text}
        part = {"role": "assistant"} | content if delta.first else content
        return {"index": delta.choice, "delta": part, "logprobs": None, "finish_reason": delta.finish}


class CompletionShape:
    """POST /v1/completions."""

    prompt_field = "prompt"
    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def whole(self, choice: Choice) -> Json:
        return _text(choice.index, choice.text, choice.finish)

    def chunk(self, delta: TextDelta) -> Json:
        return _text(delta.choice, delta.text, delta.finish)


def _text(index: int, text: str, finish: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
