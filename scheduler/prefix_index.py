"""Which replicas probably have which pages cached; a hint for placement, bounded in size.

Of a long chain only every fourth page is kept, which costs a quarter and is off by three pages.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

DENSE = 8  # pages at the beginning of a chain of which each is kept
SPARSE = 4  # of those after it one in so many
BACKWARDS = 0.75  # of a depth: where to look next for replicas that have less of a chain


class PrefixIndex:
    """Page names and the replicas that were sent them, least recently used forgotten first.

    Beginnings are forgotten last, so a replica that has a page of a chain has those before it,
    and its depth is found by bisection.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity  # pages that are kept
        # The replicas of a page are a dict for its order: the newest one comes last.
        self._replicas: OrderedDict[bytes, dict[str, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replicas)

    def add(self, chain: Sequence[bytes], replica_id: str) -> None:
        """The replica is about to hold all pages of `chain`."""
        # Last page first: beginnings, which more requests share, are forgotten last.
        for digest in reversed(_kept(chain)):
            here = self._replicas.get(digest)
            if here is None:
                self._replicas[digest] = {replica_id: None}
            else:
                here[replica_id] = None
                self._replicas.move_to_end(digest)
        while len(self._replicas) > self._capacity:
            self._replicas.popitem(last=False)

    def cached_pages(self, chain: Sequence[bytes], replicas: Iterable[str]) -> dict[str, int]:
        """How many leading pages of `chain` each of the replicas has; those without any are left out."""
        kept = _kept(chain)
        known = kept[: self._known(kept)]
        if not known:
            return {}
        return {name: depth for name in replicas if (depth := _pages(self._depth(known, name)))}

    def holders(self, chain: Sequence[bytes], most: int) -> list[str]:
        """Up to `most` replicas with a beginning of `chain`: the longest first, of those the newest.

        Looks at O(log pages) pages, so one that has a little less may be left out.
        """
        found: dict[str, None] = {}
        kept = _kept(chain)
        depth = self._known(kept)
        while depth > 0 and len(found) < most:
            for replica_id in reversed(self._replicas[kept[depth - 1]]):
                found[replica_id] = None
                if len(found) >= most:
                    break
            depth = min(depth - 1, int(depth * BACKWARDS)) if depth > 1 else 0
        return list(found)

    def forget(self, replica_id: str) -> None:
        """The replica's cache is gone."""
        for digest in [digest for digest, here in self._replicas.items() if replica_id in here]:
            del self._replicas[digest][replica_id]
            if not self._replicas[digest]:
                del self._replicas[digest]

    def _known(self, kept: Sequence[bytes]) -> int:
        """How many of the leading names any replica has."""
        low, high = 0, len(kept)  # the answer is in [low, high]
        while low < high:
            middle = (low + high + 1) // 2
            if kept[middle - 1] in self._replicas:
                low = middle
            else:
                high = middle - 1
        return low

    def _depth(self, known: Sequence[bytes], replica_id: str) -> int:
        """How many of the leading names, all of which somebody has, the replica has."""
        if replica_id not in self._replicas[known[0]]:
            return 0
        low, high = 1, len(known)
        while low < high:
            middle = (low + high + 1) // 2
            if replica_id in self._replicas[known[middle - 1]]:
                low = middle
            else:
                high = middle - 1
        return low


def _kept(chain: Sequence[bytes]) -> Sequence[bytes]:
    return (*chain[:DENSE], *chain[DENSE + SPARSE - 1 :: SPARSE])


def _pages(kept: int) -> int:
    """Leading pages of a chain that so many leading kept ones stand for."""
    return kept if kept <= DENSE else DENSE + (kept - DENSE) * SPARSE
