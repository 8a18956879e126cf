"""PagePool: every page is in one state, and promises are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.errors import BrokenBooks
from easel.scheduler.pages import PagePool


def _no_content(pages: list[int]) -> None:
    raise AssertionError(f"pages {pages} were never kept")


def _allocate(pool: PagePool, count: int) -> list[int]:
    pool.reserve(count)
    return pool.allocate(count)


def test_a_page_that_is_not_kept_is_free_after_its_release() -> None:
    pool = PagePool(2, _no_content)
    first, second = _allocate(pool, 2)
    assert pool.available == 0
    pool.release(first)
    pool.release(second)
    assert (pool.available, pool.referenced) == (2, 0)
    pool.check()


def test_a_kept_page_is_evicted_only_when_nothing_is_free() -> None:
    evicted: list[int] = []
    pool = PagePool(3, evicted.extend)
    kept, other = _allocate(pool, 2)
    pool.keep(kept)
    pool.release(kept)
    pool.release(other)
    _allocate(pool, 2)
    assert evicted == []
    assert _allocate(pool, 1) == [kept]
    assert evicted == [kept]


def test_the_least_recently_used_idle_page_is_evicted_first() -> None:
    evicted: list[int] = []
    pool = PagePool(3, evicted.extend)
    pages = _allocate(pool, 3)
    for page in pages:
        pool.keep(page)
        pool.release(page)
    pool.share(pages[0])
    pool.release(pages[0])
    _allocate(pool, 2)
    assert evicted == [pages[1], pages[2]]


def test_a_referenced_page_is_never_evicted() -> None:
    pool = PagePool(2, _no_content)
    page, other = _allocate(pool, 2)
    pool.keep(page)
    pool.release(other)
    assert pool.available == 1
    with pytest.raises(BrokenBooks):
        pool.reserve(2)


def test_what_is_promised_to_one_is_not_available_to_another() -> None:
    pool = PagePool(4, _no_content)
    pool.reserve(3)
    assert pool.available == 1
    with pytest.raises(BrokenBooks):
        pool.reserve(2)
    pool.unreserve(3)
    assert pool.available == 4


def test_a_page_released_once_too_often_is_a_bug_that_is_named() -> None:
    pool = PagePool(1, _no_content)
    (page,) = _allocate(pool, 1)
    pool.release(page)
    with pytest.raises(BrokenBooks, match="released more often"):
        pool.release(page)


@given(
    st.lists(st.tuples(st.sampled_from(["take", "share", "keep", "drop"]), st.integers(0, 50)), max_size=80)
)
def test_the_books_balance_after_any_sequence_of_operations(steps: list[tuple[str, int]]) -> None:
    content: set[int] = set()
    pool = PagePool(5, content.difference_update)
    held: list[int] = []
    for action, number in steps:
        if action == "take" and pool.available:
            held += _allocate(pool, 1)
        elif action == "share" and content:
            page = sorted(content)[number % len(content)]
            pool.share(page)
            held.append(page)
        elif action == "keep" and held:
            content.add(held[number % len(held)])
            pool.keep(held[number % len(held)])
        elif action == "drop" and held:
            pool.release(held.pop(number % len(held)))
        pool.check()
        assert pool.referenced == len(set(held))
    assert all(pool.references(page) == held.count(page) for page in range(5))
