"""PrefixIndex: a bounded memory of which replica was sent which prefix."""

from random import Random

from easel.scheduler.prefix_cache import page_chain
from easel.scheduler.prefix_index import DENSE, SPARSE, PrefixIndex


def _depths(index: PrefixIndex, chain: list[bytes]) -> dict[str, int]:
    return index.cached_pages(chain, "xyz")


def test_the_depth_to_which_each_replica_has_a_prefix_is_found() -> None:
    index = PrefixIndex(100)
    index.add(page_chain([1, 2, 3, 4, 5, 6], 2, ""), "x")
    index.add(page_chain([1, 2, 3, 4, 9, 9], 2, ""), "y")
    assert _depths(index, page_chain([1, 2, 3, 4, 5, 6, 7, 8], 2, "")) == {"x": 3, "y": 2}
    assert _depths(index, page_chain([1, 2, 3, 4, 5, 6], 2, "other tenant")) == {}


def test_a_replica_that_lacks_the_beginning_has_nothing() -> None:
    index = PrefixIndex(100)
    chain = page_chain([1, 2, 3, 4], 2, "")
    index.add(chain[1:], "x")
    index.add(chain[:1], "y")
    assert _depths(index, chain) == {"y": 1}


def test_the_index_stays_bounded_and_forgets_ends_before_beginnings() -> None:
    index = PrefixIndex(4)
    index.add(page_chain([1, 2, 3, 4, 5, 6], 1, ""), "x")
    assert len(index) == 4
    assert _depths(index, page_chain([1, 2, 3, 4, 5, 6], 1, "")) == {"x": 4}


def test_a_replica_that_is_gone_has_nothing() -> None:
    index = PrefixIndex(100)
    index.add(page_chain([1, 2], 1, ""), "x")
    index.add(page_chain([1], 1, ""), "y")
    index.forget("x")
    assert _depths(index, page_chain([1, 2], 1, "")) == {"y": 1}
    assert len(index) == 1


def test_those_with_the_longest_beginning_come_first_and_of_equals_the_newest() -> None:
    index = PrefixIndex(1000)
    chain = page_chain(range(32), 1, "")
    for name, depth in (("long", 30), ("early", 12), ("late", 12), ("short", 2)):
        index.add(chain[:depth], name)
    assert index.holders(chain, 3) == ["long", "late", "early"]
    assert index.holders(chain, 9) == ["long", "late", "early", "short"]
    assert index.holders(page_chain([5], 1, ""), 9) == []


def test_depths_are_those_of_a_walk_over_the_chain_to_within_the_pages_left_out() -> None:
    draw, index, sent = Random(3), PrefixIndex(100_000), dict[str, set[bytes]]()
    chains = [page_chain([i // 4, i // 2, *range(i, i + 40)], 1, "") for i in range(12)]
    for _ in range(60):
        chain, name = draw.choice(chains), draw.choice("xyz")
        part = chain[: draw.randint(1, len(chain))]
        index.add(part, name)
        sent.setdefault(name, set()).update(part)
    for chain in chains:
        found = _depths(index, chain)
        for name, pages in sent.items():
            walked = next((i for i, page in enumerate(chain) if page not in pages), len(chain))
            left_out = (walked - DENSE) % SPARSE if walked > DENSE else 0
            assert found.get(name, 0) == walked - left_out
