from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from easel.cluster.gateway.detokenizer import REPLACEMENT, Detokenizer
from tests.cluster.gateway.fakes import SPECIAL, byte_tokenizer, tokens_of

DECODE = byte_tokenizer().decode


def cut(tokens: Sequence[int], cuts: Sequence[int]) -> list[Sequence[int]]:
    """The tokens in consecutive pieces, some of them empty."""
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    return [tokens[start:end] for start, end in pairwise(edges)]


def feed_all(detokenizer: Detokenizer, pieces: list[Sequence[int]]) -> list[str]:
    return [*(detokenizer.feed(piece) for piece in pieces), detokenizer.flush()]


@given(st.text(max_size=30), st.lists(st.integers(0, 60), max_size=8))
def test_chunks_add_up_to_the_text_and_hold_only_whole_characters(text: str, cuts: list[int]) -> None:
    chunks = feed_all(Detokenizer(DECODE), cut(tokens_of(text), cuts))
    assert "".join(chunks) == text
    assert "".join(chunks).count(REPLACEMENT) == text.count(REPLACEMENT)


@given(st.lists(st.integers(0, 260), max_size=40), st.lists(st.integers(0, 40), max_size=8))
def test_chunks_of_any_tokens_add_up_to_what_decoding_all_at_once_gives(
    tokens: list[int], cuts: list[int]
) -> None:
    assert "".join(feed_all(Detokenizer(DECODE), cut(tokens, cuts))) == DECODE(tokens)


def strip_first_space(tokens: Sequence[int]) -> str:
    """Decodes as SentencePiece does: words with spaces before them, but none at the text's beginning."""
    words = [f"\u2581w{token}" for token in tokens if token >= len(SPECIAL)]
    return decoders.Metaspace(prepend_scheme="always").decode(words)


@given(st.lists(st.integers(0, 20), max_size=20), st.lists(st.integers(0, 20), max_size=6))
def test_spaces_between_words_survive_a_decoder_that_strips_the_first(
    tokens: list[int], cuts: list[int]
) -> None:
    chunks = feed_all(Detokenizer(strip_first_space), cut(tokens, cuts))
    assert "".join(chunks) == strip_first_space(tokens)


def test_half_a_character_waits_for_the_other_half() -> None:
    detokenizer = Detokenizer(DECODE)
    first, second = tokens_of("é")
    assert detokenizer.feed([*tokens_of("a"), first]) == "a"
    assert detokenizer.feed([second]) == "é"
    assert detokenizer.flush() == ""


def test_half_a_character_at_the_end_is_shown_as_broken() -> None:
    detokenizer = Detokenizer(DECODE)
    assert detokenizer.feed(tokens_of("é")[:1]) == ""
    assert detokenizer.flush() == REPLACEMENT


def test_the_work_of_a_block_does_not_grow_with_the_text_before_it() -> None:
    decoded: list[int] = []

    def counting(tokens: Sequence[int]) -> str:
        decoded.append(len(tokens))
        return DECODE(tokens)

    detokenizer = Detokenizer(counting)
    for _ in range(200):
        detokenizer.feed(tokens_of("01234567"))
    assert max(decoded) == 16
