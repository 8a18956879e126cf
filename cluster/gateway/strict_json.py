"""Refuses bodies that are not JSON as RFC 8259 has it, or that no parser should be given."""

import json
import re
from typing import Final, NoReturn

from easel.cluster.gateway.errors import InvalidBody, shown

MAX_DIGITS: Final = 100  # in a row; any such number still fits a double
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_LONG_NUMBER: Final = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_TO_ROUND: Final = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKET: Final = bytes(set(range(256)) - set(b"[{]}"))


def check_json(body: bytes, max_depth: int) -> None:
    """Refuses what no parser should be given, then whatever is not strictly JSON in UTF-8.

    Names may stand once in an object, as parsers differ on which of two counts. Raises InvalidBody.
    """
    bare = _STRING.sub(b'""', body)
    if _is_deeper(bare, max_depth):
        raise InvalidBody(f"objects and lists are nested more than {max_depth} deep; nest them less.")
    if _LONG_NUMBER.search(bare):
        raise InvalidBody(f"a number has more than {MAX_DIGITS} digits; shorten it.")
    try:
        json.loads(body.decode("utf-8-sig"), object_pairs_hook=_each_name_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidBody(f"not valid JSON at character {error.pos}: {error.msg}.") from None
    except UnicodeDecodeError as error:
        raise InvalidBody(f"not UTF-8 at byte {error.start}: {error.reason}.") from None


def _is_deeper(bare: bytes, limit: int) -> bool:
    """Whether brackets, of JSON without its strings, nest deeper: takes out innermost pairs `limit` times."""
    brackets = bare.translate(_TO_ROUND, _NO_BRACKET)
    for _ in range(limit):
        outer = brackets.replace(b"()", b"")
        if len(outer) == len(brackets):
            break
        brackets = outer
    # Without pairs only unclosed brackets are left, which the parser may refuse, if they are few.
    return b"()" in brackets or brackets.count(b"(") > limit


def _each_name_once(pairs: list[tuple[str, object]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise InvalidBody(f"the name {shown(name)} stands twice in one object; give it once.")
        names.add(name)


def _no_constant(name: str) -> NoReturn:
    raise InvalidBody(f"{name} is not JSON; give a number or null.")
