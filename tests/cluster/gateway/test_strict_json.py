"""What passes for JSON and what does not, whatever Python's parser would make of it."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.cluster.gateway.errors import InvalidBody
from easel.cluster.gateway.strict_json import MAX_DIGITS, check_json
from tests.cluster.gateway.fakes import CHAT, client_of, gateway_app, saying

DEPTH = 32
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    match value:
        case dict():
            return 1 + max((depth_of(one) for one in value.values()), default=0)
        case list():
            return 1 + max((depth_of(one) for one in value), default=0)
        case _:
            return 0


def refusal(body: bytes | str, depth: int = DEPTH) -> str:
    with pytest.raises(InvalidBody) as caught:
        check_json(body.encode() if isinstance(body, str) else body, depth)
    return caught.value.message


@given(VALUES, st.integers(1, 4))
def test_a_body_passes_exactly_when_it_is_not_nested_too_deeply(value: object, limit: int) -> None:
    body = json.dumps(value, allow_nan=False).encode()
    if depth_of(value) <= limit:
        check_json(body, limit)
    else:
        assert "nested" in refusal(body, limit)


@given(st.text(alphabet='[]{}"\\,:a1 ', max_size=40))
def test_any_text_either_is_json_or_is_refused(text: str) -> None:
    try:
        check_json(text.encode(), DEPTH)
    except InvalidBody:
        return
    json.loads(text)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("depth", [DEPTH + 1, 2000, 500_000])
def test_nesting_is_refused_before_it_is_parsed(opening: str, depth: int) -> None:
    assert "nested" in refusal(opening * depth)


def test_brackets_within_strings_do_not_nest() -> None:
    check_json(json.dumps({"a": "[" * 100, 'b"': "{" * 100, "c\\": ['"[', "\\"]}).encode(), 2)


@pytest.mark.parametrize(
    "number", ["1" * (MAX_DIGITS + 1), "-" + "9" * 5000, "1e" + "9" * 200, "0." + "3" * 101]
)
def test_a_number_too_long_to_be_one_is_refused(number: str) -> None:
    assert "digits" in refusal(f'{{"seed": {number}}}')
    check_json(f'{{"seed": "{number}"}}'.encode(), DEPTH)


def test_the_longest_number_is_within_what_python_and_a_double_can_hold() -> None:
    assert sys.get_int_max_str_digits() > MAX_DIGITS
    assert float(int("9" * MAX_DIGITS)) < sys.float_info.max


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_only_python_knows_are_refused(constant: str) -> None:
    assert constant in refusal(f'{{"metadata": [{constant}]}}')


@pytest.mark.parametrize("body", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "\\u0061": 3}}]'])
def test_a_name_given_twice_is_refused(body: str) -> None:
    assert "'a' stands twice" in refusal(body)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"a": oops}', "character 6"),
        (b'{"a": "\xff"}', "UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not valid JSON"),
        (b'{"a": 1} {}', "character 9"),
        (b'{"a": "\n"}', "not valid JSON"),
        (b'{"a": "unfinished', "not valid JSON"),
        (b"]" * 50, "not valid JSON"),
    ],
)
def test_what_is_not_json_is_told_where(body: bytes, problem: str) -> None:
    assert problem in refusal(body)


@pytest.mark.asyncio
async def test_a_refused_body_is_a_400_in_the_usual_shape() -> None:
    backend = saying("x")
    async with client_of(gateway_app(backend)) as client:
        answer = await client.post(CHAT, content=b"[" * 100_000, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_json")
    assert backend.requests == []
