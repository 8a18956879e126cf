"""All that another gateway needs to go on with an answer, as the journal keeps it."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from easel.cluster.gateway.choice import Choice, choices_of
from easel.cluster.gateway.statistics import Json
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.cluster.journal_records import AnswerRecord, decode_request, encode
from easel.scheduler.request import Request

LEAST_DEADLINE_SECONDS = 0.001  # of an answer whose deadline has passed meanwhile


@dataclass(frozen=True, slots=True)
class AnswerContent:
    """What an answer is made of beside its blocks."""

    model: str
    created: float  # seconds since the Unix epoch
    seed: int  # of the whole answer; its choices' follow from it
    requests: tuple[Request, ...]  # one for each choice, as first submitted
    stops: tuple[str, ...] = ()
    choices_per_prompt: int = 1
    response: Json = field(default_factory=dict[str, object])  # of the Responses API: what its objects repeat
    traceparent: str = ""  # of the HTTP request that began it; what is done for it later belongs there

    def to_json(self) -> str:
        return json.dumps(
            {
                "model": self.model,
                "created": self.created,
                "seed": self.seed,
                # A prompt is written once, however many choices it has.
                "prompts": [request.prompt for request in self.requests[:: self.choices_per_prompt]],
                "requests": [encode(replace(one, prompt=one.prompt[:1])) for one in self.requests],
                "stops": self.stops,
                "choices_per_prompt": self.choices_per_prompt,
                "response": self.response,
                "traceparent": self.traceparent,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> "AnswerContent":
        fields: dict[str, Any] = json.loads(text)
        prompts = [tuple(prompt) for prompt in fields.pop("prompts")]
        requests = tuple(
            replace(decode_request(request), prompt=prompts[index // fields["choices_per_prompt"]])
            for index, request in enumerate(fields.pop("requests"))
        )
        return cls(requests=requests, stops=tuple(fields.pop("stops")), **fields)

    def choices(self, tokenizer: ChatTokenizer) -> list[Choice]:
        """Choices that have not seen any block."""
        return choices_of(self.requests, self.stops, tokenizer)

    def record(self, answer_id: str, tenant: str, fingerprint: str, background: bool = False) -> AnswerRecord:
        ids = tuple(request.request_id for request in self.requests)
        return AnswerRecord(answer_id, tenant, fingerprint, ids, self.to_json(), background)


def request_from_here(choice: Choice, created: float, now: float) -> Request:
    """The choice's request without the blocks that are there. `created` and `now` are of the wall clock.

    What is left of its deadline counts, so that being carried over earns nobody time.
    """
    request = choice.request
    deadline = request.deadline_seconds
    if deadline is not None:
        deadline = max(deadline - max(now - created, 0.0), LEAST_DEADLINE_SECONDS)
    committed = tuple(token for event in choice.events for token in event.tokens)
    return replace(request, committed=committed, deadline_seconds=deadline)
