"""A JSON object that is strict about its fields and its text."""

from typing import Annotated, Any, ClassVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from easel.cluster.gateway.fields import Effect, Harmless, known_fields

Fields = dict[str, object]


def _utf8(text: str) -> str:
    """JSON can write half of a surrogate pair, which no tokenizer and no response can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("not_unicode", "has a surrogate without its other half") from None
    return text


Text = Annotated[str, AfterValidator(_utf8)]


def _document_harmless(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Fields that ask for nothing are accepted, so the OpenAPI document has them too."""
    if not issubclass(model, JsonObject):
        return
    for name, values in model.harmless.items():
        anything: dict[str, object] = {}
        at_these = anything if isinstance(values, Effect) else {"enum": [*values, None]}
        schema.setdefault("properties", {})[name] = at_these | {"description": "Accepted; changes nothing."}


class JsonObject(BaseModel):
    """Refuses fields it does not know, by name, numbers in strings, and numbers without end."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra=_document_harmless
    )
    harmless: ClassVar[Harmless] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_fields(cls, data: object) -> object:
        fields = cls.model_fields
        return known_fields(cast(Fields, data), fields, cls.harmless) if isinstance(data, dict) else data
