from hypothesis import given
from hypothesis import strategies as st

from easel.cluster.gateway.stop_strings import StopStrings

WORDS = st.text(alphabet="ab", min_size=1, max_size=4)


def run(pieces: list[str], stops: list[str]) -> tuple[list[str], bool]:
    matcher = StopStrings(stops)
    sent = [matcher.feed(piece) for piece in pieces]
    return ([*sent, matcher.flush()], matcher.found)


def reference(text: str, stops: list[str]) -> tuple[str, bool]:
    """Reads one character more at a time and stops at the first text that ends in a stop string."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(st.lists(st.text(alphabet="ab", max_size=5), max_size=8), st.lists(WORDS, max_size=4))
def test_the_text_ends_where_a_reader_of_single_characters_would_end_it(
    pieces: list[str], stops: list[str]
) -> None:
    sent, found = run(pieces, stops)
    assert ("".join(sent), found) == reference("".join(pieces), stops)


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["END"])
    assert matcher.feed("the E") == "the "
    assert matcher.feed("N") == ""
    assert matcher.feed("ough") == "ENough"
    assert not matcher.found


def test_nothing_is_sent_after_a_stop_string() -> None:
    assert run(["a END b", "c"], ["END"]) == (["a ", "", ""], True)


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert run(["abc", "d"], []) == (["abc", "d", ""], False)
