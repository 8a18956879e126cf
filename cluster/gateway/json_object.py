"""A JSON object that is strict about its fields and its text."""

from typing import Annotated, ClassVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from easel.cluster.gateway.fields import Harmless, known_fields

Fields = dict[str, object]


def _utf8(text: str) -> str:
    """JSON can write half of a surrogate pair, which no tokenizer and no response can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("not_unicode", "has a surrogate without its other half") from None
    return text


Text = Annotated[str, AfterValidator(_utf8)]


class JsonObject(BaseModel):
    """Refuses fields it does not know, by name, and does not turn strings into numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)
    harmless: ClassVar[Harmless] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_fields(cls, data: object) -> object:
        fields = cls.model_fields
        return known_fields(cast(Fields, data), fields, cls.harmless) if isinstance(data, dict) else data
