"""PrefixIndex: a bounded memory of which replica was sent which prefix."""

from easel.scheduler.prefix_cache import page_chain
from easel.scheduler.prefix_index import PrefixIndex


def test_the_depth_to_which_each_replica_has_a_prefix_is_found() -> None:
    index = PrefixIndex(100)
    index.add(page_chain([1, 2, 3, 4, 5, 6], 2, ""), "x")
    index.add(page_chain([1, 2, 3, 4, 9, 9], 2, ""), "y")
    assert index.cached_pages(page_chain([1, 2, 3, 4, 5, 6, 7, 8], 2, "")) == {"x": 3, "y": 2}
    assert index.cached_pages(page_chain([1, 2, 3, 4, 5, 6], 2, "other tenant")) == {}


def test_a_replica_that_lacks_the_beginning_has_nothing() -> None:
    index = PrefixIndex(100)
    chain = page_chain([1, 2, 3, 4], 2, "")
    index.add(chain[1:], "x")
    index.add(chain[:1], "y")
    assert index.cached_pages(chain) == {"y": 1}


def test_the_index_stays_bounded_and_forgets_ends_before_beginnings() -> None:
    index = PrefixIndex(4)
    index.add(page_chain([1, 2, 3, 4, 5, 6], 1, ""), "x")
    assert len(index) == 4
    assert index.cached_pages(page_chain([1, 2, 3, 4, 5, 6], 1, "")) == {"x": 4}


def test_a_replica_that_is_gone_has_nothing() -> None:
    index = PrefixIndex(100)
    index.add(page_chain([1, 2], 1, ""), "x")
    index.add(page_chain([1], 1, ""), "y")
    index.forget("x")
    assert index.cached_pages(page_chain([1, 2], 1, "")) == {"y": 1}
    assert len(index) == 1
