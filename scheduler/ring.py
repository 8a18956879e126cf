"""Consistent hashing: which shard a key belongs to, so that few keys move when shards come or go.

Karger et al., "Consistent Hashing and Random Trees" (STOC 1997), with several points per shard;
the walk that passes over full shards is that of Mirrokni, Thorup and Zadimoghaddam, "Consistent
Hashing with Bounded Loads" (SODA 2018).
"""

from bisect import bisect_right
from collections.abc import Iterator
from hashlib import blake2b

POINTS = 128  # per shard; the share of a shard varies by about 1 / sqrt(POINTS)


class HashRing:
    """Shards 0 … count-1 on a circle. The same in every process: nothing depends on Python's own hash."""

    def __init__(self, count: int, points: int = POINTS) -> None:
        self.count = count
        placed = sorted(
            (_place(f"{shard}/{i}".encode()), shard) for shard in range(count) for i in range(points)
        )
        self._places = [place for place, _ in placed]
        self._shards = [shard for _, shard in placed]

    def owner(self, key: bytes) -> int:
        """The shard a key belongs to."""
        return self._shards[self._after(key)]

    def walk(self, key: bytes) -> Iterator[int]:
        """All shards, each once, in the order in which the key would fall to them."""
        first = self._after(key)
        seen: set[int] = set()
        for i in range(len(self._shards)):
            shard = self._shards[(first + i) % len(self._shards)]
            if shard not in seen:
                seen.add(shard)
                yield shard

    def _after(self, key: bytes) -> int:
        return bisect_right(self._places, _place(key)) % len(self._places)


def _place(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
