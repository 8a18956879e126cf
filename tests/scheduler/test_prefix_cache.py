"""PrefixCache: equal prefixes have equal names, and only those."""

from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.prefix_cache import PrefixCache, page_chain

TOKENS = st.lists(st.integers(0, 3), max_size=24)


def test_a_chain_names_full_pages_only() -> None:
    assert len(page_chain([5] * 11, 4, "")) == 2
    assert page_chain([5] * 3, 4, "") == []


def test_equal_pages_after_different_beginnings_have_different_names() -> None:
    one, other = page_chain([1, 2, 7, 7], 2, ""), page_chain([1, 3, 7, 7], 2, "")
    assert one[1] != other[1]


def test_tenants_share_no_name() -> None:
    one, other = page_chain([1] * 8, 2, "a"), page_chain([1] * 8, 2, "b")
    assert not set(one) & set(other)


def test_a_match_is_the_longest_cached_beginning() -> None:
    cache = PrefixCache()
    chain = page_chain(range(12), 4, "")
    for digest, page in zip(chain, (7, 3, 9), strict=True):
        assert cache.insert(digest, page)
    assert cache.match(page_chain([*range(8), 0, 0, 0, 0], 4, "")) == [7, 3]
    cache.forget([7])
    assert cache.match(chain) == []


def test_content_that_is_cached_already_keeps_its_page() -> None:
    cache = PrefixCache()
    (digest,) = page_chain([1, 2], 2, "")
    assert cache.insert(digest, 1)
    assert not cache.insert(digest, 2)
    assert cache.match([digest]) == [1]
    assert not cache.holds(2)
    cache.check()


@given(TOKENS, TOKENS, st.integers(1, 4))
def test_chains_agree_exactly_on_the_common_pages(one: list[int], other: list[int], size: int) -> None:
    common = 0
    while (common + 1) * size <= min(len(one), len(other)) and (
        one[: (common + 1) * size] == other[: (common + 1) * size]
    ):
        common += 1
    chains = page_chain(one, size, "t"), page_chain(other, size, "t")
    agree = [a == b for a, b in zip(*chains, strict=False)]
    assert agree == [True] * common + [False] * (len(agree) - common)
