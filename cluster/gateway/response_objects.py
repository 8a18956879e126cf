"""Objects of the Responses API, made of an answer's content and its one choice."""

from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from easel.cluster.gateway.answer_content import AnswerContent
from easel.cluster.gateway.choice import Choice
from easel.cluster.gateway.statistics import Json, diffusion_of, usage_of
from easel.scheduler.request import FinishReason

ID_PREFIX = "resp_"


class ResponseStatus(StrEnum):
    """How far a response is, in OpenAI's words."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (ResponseStatus.QUEUED, ResponseStatus.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class ResponseView:
    """One response. Its choice grows meanwhile."""

    response_id: str
    content: AnswerContent
    choice: Choice
    background: bool

    @property
    def item_id(self) -> str:
        return f"msg_{self.response_id.removeprefix(ID_PREFIX)}"

    @property
    def final_status(self) -> ResponseStatus:
        """Of a response whose choice has ended."""
        cut = self.choice.finish is FinishReason.LENGTH
        return ResponseStatus.INCOMPLETE if cut else ResponseStatus.COMPLETED

    def whole(self, status: ResponseStatus, error: Json | None = None) -> Json:
        """The response with the text that it has at this status."""
        begun = bool(self.choice.events) and status is not ResponseStatus.QUEUED
        ended = status in (ResponseStatus.COMPLETED, ResponseStatus.INCOMPLETE)
        output = [self.item(self.choice.text, status)] if begun or ended else []
        return self.bare(status) | {
            "output": output,
            "error": error,
            "incomplete_details": self._incomplete_details(status),
            "usage": self._usage() if status.ended else None,
            "diffusion": diffusion_of([self.choice], self.content.seed) if status.ended else None,
        }

    def bare(self, status: ResponseStatus) -> Json:
        """The response without what grows, as the first events carry it."""
        sampling = self.choice.request.sampling
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": int(self.content.created),
            "status": status.value,
            "background": self.background,
            "error": None,
            "incomplete_details": None,
            "max_tool_calls": None,
            "model": self.content.model,
            "output": [],
            "parallel_tool_calls": True,
            "prompt_cache_key": None,
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": None,
            "service_tier": "default",
            "temperature": sampling.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "usage": None,
            **self._repeated(),
        }

    def item(self, text: str, status: ResponseStatus) -> Json:
        """The output message."""
        done = {ResponseStatus.IN_PROGRESS: "in_progress", ResponseStatus.COMPLETED: "completed"}
        return {
            "id": self.item_id,
            "type": "message",
            "role": "assistant",
            "status": done.get(status, "incomplete"),
            "content": [part(text)] if text or status.ended else [],
        }

    def _repeated(self) -> Json:
        """What the body said, as the journal keeps it."""
        names = (
            "instructions",
            "max_output_tokens",
            "metadata",
            "previous_response_id",
            "store",
            "user",
        )
        return {name: self.content.response[name] for name in names}

    def _incomplete_details(self, status: ResponseStatus) -> Json | None:
        cut = status is ResponseStatus.INCOMPLETE and self.choice.finish is FinishReason.LENGTH
        return {"reason": "max_output_tokens"} if cut else None

    def _usage(self) -> Json:
        usage = usage_of([self.choice], 1)
        cached = cast(Json, usage["prompt_tokens_details"])
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cache_write_tokens": 0, **cached},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }


def part(text: str) -> Json:
    """The output message's one part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
