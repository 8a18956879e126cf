"""Which replicas probably have which pages cached; a hint for placement, bounded in size."""

from collections import OrderedDict
from collections.abc import Sequence


class PrefixIndex:
    """Page names and the replicas that were sent them, least recently used forgotten first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._replicas: OrderedDict[bytes, set[str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replicas)

    def add(self, chain: Sequence[bytes], replica_id: str) -> None:
        """The replica is about to hold all pages of `chain`."""
        # Last page first: beginnings, which more requests share, are forgotten last.
        for digest in reversed(chain):
            self._replicas.setdefault(digest, set()).add(replica_id)
            self._replicas.move_to_end(digest)
        while len(self._replicas) > self._capacity:
            self._replicas.popitem(last=False)

    def cached_pages(self, chain: Sequence[bytes]) -> dict[str, int]:
        """How many leading pages of `chain` each replica has; replicas without any are left out."""
        found: dict[str, int] = {}
        for depth, digest in enumerate(chain):
            here = self._replicas.get(digest)
            going_on = [] if here is None else [r for r in here if found.get(r, 0) == depth]
            if not going_on:
                break
            for replica_id in going_on:
                found[replica_id] = depth + 1
        return found

    def forget(self, replica_id: str) -> None:
        """The replica's cache is gone."""
        for digest in [digest for digest, here in self._replicas.items() if replica_id in here]:
            self._replicas[digest].discard(replica_id)
            if not self._replicas[digest]:
                del self._replicas[digest]
