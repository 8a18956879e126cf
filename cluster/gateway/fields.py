"""Which fields a JSON object may have: known ones, harmless ones, and everything else refused by name.

OpenAI's API has fields that Easel does not implement. A client library may send them at a
value that asks for nothing; that is accepted. At any other value silence would be a lie.
"""

import difflib
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Final, NoReturn, cast

from pydantic_core import PydanticCustomError

from easel.cluster.gateway.errors import shown


class Effect(Enum):
    """Fields that never change the answer, whatever their value."""

    NONE = "none"


LONGEST_NAME: Final = 64  # characters of an unknown field's name that go into a message

Harmless = Mapping[str, tuple[object, ...] | Effect]  # null is always harmless

HARMLESS_SAMPLING: Final[Harmless] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "metadata": Effect.NONE,
    "min_p": (0,),
    "min_tokens": (0,),
    "presence_penalty": (0,),
    "prompt_cache_key": Effect.NONE,
    "repetition_penalty": (1,),
    "safety_identifier": Effect.NONE,
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "store": (False,),
}
HARMLESS_CHAT: Final[Harmless] = {
    **HARMLESS_SAMPLING,
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": Effect.NONE,
    "prediction": (),
    "prompt_cache_retention": Effect.NONE,
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
HARMLESS_COMPLETION: Final[Harmless] = {
    **HARMLESS_SAMPLING,
    "echo": (False,),
    "logprobs": (False,),
    "suffix": ("",),
}
HARMLESS_MESSAGE: Final[Harmless] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}
HARMLESS_PART: Final[Harmless] = {"file": (), "image_url": (), "input_audio": (), "refusal": ()}
HARMLESS_STREAM_OPTIONS: Final[Harmless] = {
    "include_obfuscation": (False,),
}


def known_fields(
    data: Mapping[str, object], fields: Collection[str], harmless: Harmless
) -> dict[str, object]:
    """The object without its harmless fields.

    Raises PydanticCustomError, with the name in its context, for a field that is not known,
    or known but unsupported at its value.
    """
    kept: dict[str, object] = {}
    for name, value in data.items():
        if name in fields:
            kept[name] = value
        elif name not in harmless:
            _refuse_unknown(name, fields)
        elif not _is_harmless(value, harmless[name]):
            _refuse_unsupported(name, value)
    return kept


def merge_extra_body(data: Mapping[str, object]) -> dict[str, object]:
    """`extra_body` of OpenAI's Python client belongs at the top level; some clients send it as it is."""
    extra = data.get("extra_body")
    merged = {name: value for name, value in data.items() if name != "extra_body"}
    if not isinstance(extra, dict):
        return merged if extra is None else dict(data)
    for name, value in cast(dict[str, object], extra).items():
        if name in merged and merged[name] != value:
            raise PydanticCustomError(
                "given_twice",
                "is given twice, with different values, here and at the top level",
                {"field": f"extra_body.{name}"},
            )
        merged[name] = value
    return merged


def _is_harmless(value: object, values: tuple[object, ...] | Effect) -> bool:
    if value is None or isinstance(values, Effect):
        return True
    # Python holds False equal to 0, which JSON does not.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


def _refuse_unknown(name: str, fields: Collection[str]) -> NoReturn:
    # A name may hold half of a surrogate pair, which no message can, and be as long as the body.
    printable = name[:LONGEST_NAME].encode(errors="backslashreplace").decode()
    close = difflib.get_close_matches(printable, fields, n=1)
    hint = f"the nearest known one is {close[0]}" if close else "known fields: " + ", ".join(sorted(fields))
    raise PydanticCustomError("unknown_field", "unknown field; {hint}", {"field": printable, "hint": hint})


def _refuse_unsupported(name: str, value: object) -> NoReturn:
    raise PydanticCustomError(
        "unsupported_field",
        "unsupported by Easel at the value {value}; leave it out",
        {"field": name, "value": shown(value)},
    )
