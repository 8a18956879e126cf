"""HashRing: even shares, and few keys move when a shard comes or goes."""

from collections import Counter

import pytest

from easel.scheduler.ring import HashRing

KEYS = [f"tenant-{i}".encode() for i in range(4000)]


@pytest.mark.parametrize("shards", [2, 5, 8])
def test_shards_get_about_the_same_number_of_keys(shards: int) -> None:
    ring = HashRing(shards)
    counts = Counter(ring.owner(key) for key in KEYS)
    even = len(KEYS) / shards
    assert len(counts) == shards
    assert all(0.7 * even <= count <= 1.3 * even for count in counts.values())


def test_one_shard_more_takes_its_share_and_moves_nothing_else() -> None:
    before, after = HashRing(7), HashRing(8)
    moved = [key for key in KEYS if before.owner(key) != after.owner(key)]
    assert all(after.owner(key) == 7 for key in moved)
    assert 0.7 / 8 <= len(moved) / len(KEYS) <= 1.3 / 8


def test_a_walk_meets_every_shard_once_and_begins_with_the_owner() -> None:
    ring = HashRing(6)
    for key in KEYS[:50]:
        walk = list(ring.walk(key))
        assert sorted(walk) == list(range(6))
        assert walk[0] == ring.owner(key)


def test_owners_are_the_same_in_every_process() -> None:
    ring = HashRing(4)
    assert [ring.owner(key) for key in KEYS[:8]] == [2, 0, 1, 2, 2, 3, 0, 3]
