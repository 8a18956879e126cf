"""The JSON body of POST /v1/responses."""

from typing import Annotated, ClassVar, Final, Literal, Self, cast

from pydantic import BeforeValidator, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from easel.cluster.gateway.bodies import (
    MAX_MESSAGES,
    MAX_PARTS,
    AnyGenerationBody,
    AtLeastOne,
    GenerationBody,
    role_in_template,
)
from easel.cluster.gateway.fields import Effect, Harmless
from easel.cluster.gateway.json_object import JsonObject, Text

HARMLESS_RESPONSE: Final[Harmless] = {
    "context_management": ([],),
    "conversation": (),
    "include": ([],),
    "max_tool_calls": Effect.NONE,
    "moderation": (),
    "parallel_tool_calls": Effect.NONE,
    "prompt": (),
    "prompt_cache_key": Effect.NONE,
    "prompt_cache_retention": Effect.NONE,
    "reasoning": ({}, {"effort": "none"}, {"effort": None}, {"effort": None, "summary": None}),
    "safety_identifier": Effect.NONE,
    "service_tier": ("auto", "default"),
    "stream_options": ({}, {"include_obfuscation": False}),
    "text": ({}, {"format": {"type": "text"}}, {"format": {"type": "text"}, "verbosity": "medium"}),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
HARMLESS_ITEM: Final[Harmless] = {"id": Effect.NONE, "phase": Effect.NONE, "status": Effect.NONE}
HARMLESS_CONTENT: Final[Harmless] = {
    "annotations": ([],),
    "detail": (),
    "file_data": (),
    "file_id": (),
    "image_url": (),
    "logprobs": ([],),
}
MAX_METADATA = 16  # entries, as OpenAI has it
Turn = dict[str, str]  # role and content, as chat templates read them


class ContentPart(JsonObject):
    """One part of an item; Easel reads text only. An earlier answer's parts are `output_text`."""

    harmless: ClassVar[Harmless] = HARMLESS_CONTENT

    type: Literal["input_text", "output_text"]
    text: Text


Parts = Annotated[list[ContentPart], Field(max_length=MAX_PARTS)]


def _text_parts(content: object) -> object:
    """A plain string is one part, so that errors name a path that exists in the body."""
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if isinstance(content, list):
        return cast(list[object], content)
    raise PydanticCustomError("content", "must be a string or a list of text parts")


class InputItem(JsonObject):
    """One turn of the conversation."""

    harmless: ClassVar[Harmless] = HARMLESS_ITEM

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[ContentPart],
        FailFast(),
        Field(max_length=MAX_PARTS),
        BeforeValidator(_text_parts, json_schema_input_type=Text | Parts),
    ]

    def turn(self) -> Turn:
        """What a chat template reads."""
        return {"role": role_in_template(self.role), "content": "".join(part.text for part in self.content)}


def _items(value: object) -> object:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list):
        return cast(list[object], value)
    raise PydanticCustomError("input", "must be a string or a list of messages")


Items = Annotated[list[InputItem], Field(min_length=1, max_length=MAX_MESSAGES)]


class ResponseBody(AnyGenerationBody):
    """POST /v1/responses."""

    harmless: ClassVar[Harmless] = HARMLESS_RESPONSE

    input: Annotated[
        list[InputItem],
        FailFast(),
        Field(min_length=1, max_length=MAX_MESSAGES),
        BeforeValidator(_items, json_schema_input_type=Text | Items),
    ]
    instructions: Text | None = None
    max_output_tokens: AtLeastOne | None = None
    previous_response_id: Text | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Annotated[dict[Text, Text] | None, Field(max_length=MAX_METADATA)] = None

    @model_validator(mode="after")
    def _background_is_stored(self) -> Self:
        if self.background and self.store is False:
            problem = "must not be false when background is true: the answer could not be fetched"
            raise PydanticCustomError("not_stored", problem, {"field": "store"})
        return self

    def turns(self) -> list[Turn]:
        """What this body adds to a conversation, its instructions left out."""
        return [item.turn() for item in self.input]

    def generation(self) -> GenerationBody:
        """The same wishes in the other routes' words."""
        return GenerationBody(
            model=self.model,
            max_tokens=self.max_output_tokens,
            seed=self.seed,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            diffusion=self.diffusion,
        )
