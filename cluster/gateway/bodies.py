"""The JSON bodies of the generation routes. Ranges are checked where the parameters live, in scheduler."""

from enum import Enum, auto
from typing import Annotated, ClassVar, Literal, Self, cast

from pydantic import BeforeValidator, FailFast, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from easel.cluster.gateway.fields import (
    HARMLESS_CHAT,
    HARMLESS_COMPLETION,
    HARMLESS_MESSAGE,
    HARMLESS_PART,
    HARMLESS_SAMPLING,
    HARMLESS_STREAM_OPTIONS,
    Harmless,
    merge_extra_body,
)
from easel.cluster.gateway.json_object import Fields, JsonObject, Text
from easel.scheduler.request import MAX_SEED, CommitRule, Schedule


def documented(kind: str, least: int, most: int | None = None) -> WithJsonSchema:
    """The range as the OpenAPI document has it."""
    schema: dict[str, object] = {"type": kind, "minimum": least}
    return WithJsonSchema(schema if most is None else schema | {"maximum": most})


MAX_STOP_STRINGS = 4
MAX_STOP_CHARACTERS = 1000
MAX_MESSAGES = 4096
MAX_PARTS = 1024  # of one message
MAX_PROMPTS = 1024
MAX_STEPS = 4096  # no schedule is longer, so that no request can ask for a table without end
Prompt = Text | list[int]
Steps = Annotated[int, Field(le=MAX_STEPS), documented("integer", 0, MAX_STEPS)]
StepLimit = Annotated[int, Field(le=MAX_STEPS), documented("integer", 1, MAX_STEPS)]
AtLeastOne = Annotated[int, documented("integer", 1)]
Share = Annotated[float, documented("number", 0, 1)]
Nats = Annotated[float, documented("number", 0)]
Temperature = Annotated[float, documented("number", 0, 10)]
TopK = Annotated[int, documented("integer", 0)]
Seed = Annotated[int, documented("integer", 0, MAX_SEED)]


class DiffusionOptions(JsonObject):
    """How canvases settle; what is left out is the model's default."""

    steps: StepLimit | None = None  # at most this many denoising steps a block
    commit_rule: Annotated[CommitRule | None, Field(strict=False)] = None
    threshold: Share | None = None  # confidence_threshold
    entropy_bound: Nats | None = None  # entropy_bound, nats
    schedule: Annotated[Schedule | None, Field(strict=False)] = None
    stop_entropy: Nats | None = None  # nats
    stability: Steps | None = None  # steps that must agree, of models that renoise
    temperature_start: Temperature | None = (
        None  # factor of the temperature in the first step, of such models
    )
    temperature_end: Temperature | None = None  # and in the last
    edit_threshold: Share | None = None  # decided tokens may still change above it
    rebuild_every: Steps | None = None  # partial steps between full ones; 0: none, exact


class UsageWanted(Enum):
    """Which chunks of a stream say what the answer cost."""

    WITH_THE_LAST = auto()  # that has text
    APART = auto()  # one without choices, at the end
    ALWAYS = auto()  # that one, and all before it


class StreamOptions(JsonObject):
    """What a stream carries beside text."""

    harmless: ClassVar[Harmless] = HARMLESS_STREAM_OPTIONS

    include_usage: bool = False
    continuous_usage_stats: bool = False  # and every chunk what it has come to so far, as vLLM has it
    include_canvas: bool = False  # also send the canvas after every denoising step


def role_in_template(role: str) -> str:
    """Templates know `system`, not OpenAI's newer `developer`."""
    return "system" if role == "developer" else role


class TextPart(JsonObject):
    """One part of a message; Easel reads text only."""

    harmless: ClassVar[Harmless] = HARMLESS_PART

    type: Literal["text"]
    text: Text


Parts = Annotated[list[TextPart], Field(max_length=MAX_PARTS)]


def _text_parts(content: object) -> object:
    """A plain string is one part, so that errors name a path that exists in the body."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        return cast(list[object], content)
    raise PydanticCustomError("content", "must be a string or a list of text parts")


class Message(JsonObject):
    """One turn of a chat."""

    harmless: ClassVar[Harmless] = HARMLESS_MESSAGE

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[TextPart],
        FailFast(),
        Field(max_length=MAX_PARTS),
        BeforeValidator(_text_parts, json_schema_input_type=Text | Parts),
    ]
    name: Text | None = None

    def for_template(self) -> dict[str, str]:
        """What a chat template reads."""
        turn = {"role": role_in_template(self.role), "content": "".join(part.text for part in self.content)}
        return turn if self.name is None else turn | {"name": self.name}


def _stop_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


StopString = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
StopStrings = Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)]


class AnyGenerationBody(JsonObject):
    """What all generation routes have in common."""

    model: Text
    seed: Seed | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: Share | None = None
    user: Text | None = None
    diffusion: DiffusionOptions = Field(default_factory=DiffusionOptions)

    @model_validator(mode="before")
    @classmethod
    def _merge_extra_body(cls, data: object) -> object:
        return merge_extra_body(cast(Fields, data)) if isinstance(data, dict) else data


class GenerationBody(AnyGenerationBody):
    """What chat and plain completions have in common."""

    harmless: ClassVar[Harmless] = HARMLESS_SAMPLING

    max_tokens: AtLeastOne | None = None
    n: int | None = Field(default=None, ge=1)
    stop: Annotated[
        StopStrings | None,
        BeforeValidator(_stop_list, json_schema_input_type=StopString | StopStrings | None),
    ] = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "no_stream", "only allowed when stream is true", {"field": "stream_options"}
            )
        return self

    @property
    def output_tokens(self) -> int | None:
        """Tokens asked for, if the body says."""
        return self.max_tokens

    @property
    def canvas_wanted(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_canvas

    @property
    def usage_wanted(self) -> "UsageWanted":
        if self.stream_options is None or not self.stream_options.include_usage:
            return UsageWanted.WITH_THE_LAST
        return UsageWanted.ALWAYS if self.stream_options.continuous_usage_stats else UsageWanted.APART


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    harmless: ClassVar[Harmless] = HARMLESS_CHAT

    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: AtLeastOne | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (limits := {self.max_tokens, self.max_completion_tokens}) and len(limits) > 1:
            raise PydanticCustomError(
                "given_twice",
                "differs from max_completion_tokens, its newer name; give one of them",
                {"field": "max_tokens"},
            )
        return self

    @property
    def output_tokens(self) -> int | None:
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


def _prompt_list(prompt: object) -> object:
    """A string, a list of strings, a list of token ids, or a list of those: always a list of prompts."""
    if isinstance(prompt, str) or _is_tokens(prompt):
        return _not_empty([prompt])
    if isinstance(prompt, list):
        return _not_empty(cast(list[object], prompt))
    raise PydanticCustomError("prompt", "must be a string, a list of strings, or a list of token ids")


def _not_empty(prompts: list[object]) -> list[object]:
    for prompt in prompts:
        if not (isinstance(prompt, str) or _is_tokens(prompt)) or not prompt:
            raise PydanticCustomError("prompt", "each prompt must be text or token ids, and not empty")
    return prompts


def _is_tokens(value: object) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(one, int) and not isinstance(one, bool) for one in cast(list[object], value))


PromptText = Annotated[Text, Field(min_length=1)]
TokenIds = Annotated[list[Annotated[int, documented("integer", 0)]], Field(min_length=1)]
Prompts = Annotated[list[PromptText | TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    harmless: ClassVar[Harmless] = HARMLESS_COMPLETION

    prompt: Annotated[
        list[Prompt],
        FailFast(),
        Field(max_length=MAX_PROMPTS),
        BeforeValidator(_prompt_list, json_schema_input_type=PromptText | TokenIds | Prompts),
    ]
