"""Replicas lent from shards with time to shards with a queue, and given back.

A replica changes hands only while nothing runs on it: one that is to go is reserved, so that
nothing more is placed there, and goes once it is idle. So a request's replica belongs to one
shard for as long as the request is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from easel.scheduler.central import ClusterScheduler

INTERVAL_SECONDS = 0.5  # between two looks
BORROW_SECONDS = 1.0  # predicted wait from which on a shard borrows
LENT_LOAD = 0.75  # a shard lends, or gives back, only if its work fills no more of what it keeps
LOAN_SECONDS = 5.0  # a replica is not given back sooner, unless its own shard has a queue
MOST_SHARE = 8  # of a shard's replicas one in so many is asked for at once, and one at least


@dataclass(slots=True)
class Holding:
    """Whose a replica is. `epoch` grows with each change of hands."""

    home: int
    holder: int
    epoch: int = 1
    since: float = 0.0
    promised: int | None = None  # the shard it goes to once it is idle

    @property
    def lent(self) -> bool:
        return self.holder != self.home


class Lending:
    """Decides who lends what to whom; owns the book of who holds which replica."""

    def __init__(self, shards: Sequence[ClusterScheduler]) -> None:
        self._shards = shards
        self._looked_at: float | None = None
        self.book: dict[str, Holding] = {}  # by replica

    def add(self, replica_id: str, home: int, now: float) -> None:
        self.book[replica_id] = Holding(home, home, since=now)

    def remove(self, replica_id: str) -> None:
        self.book.pop(replica_id, None)

    def look(self, now: float) -> None:
        """Hands over what is idle and promised, then promises more where that helps."""
        if self._looked_at is not None and now - self._looked_at < INTERVAL_SECONDS:
            return
        self._looked_at = now
        self._hand_over(now)
        self._endow()
        self._give_back(now)
        waits = [shard.predicted_wait(now) if shard.waiting else 0.0 for shard in self._shards]
        for borrower in sorted(range(len(waits)), key=lambda i: -waits[i]):
            if waits[borrower] >= BORROW_SECONDS:
                self._borrow(borrower, waits, now)
        self._hand_over(now)

    def _endow(self) -> None:
        """A shard that has lost all its replicas gets one for good, from the shard with the most."""
        for shard, scheduler in enumerate(self._shards):
            if (
                not scheduler.waiting
                or scheduler.replicas
                or any(h.promised == shard for h in self.book.values())
            ):
                continue
            giver = max(self._shards, key=lambda other: len(other.replicas))
            free = [name for name in giver.replicas if self.book[name].promised is None]
            if len(free) > 1:
                chosen = min(free, key=lambda name: (len(giver.outstanding(name)), name))
                self.book[chosen].home = shard
                self._promise(chosen, shard)

    def _borrow(self, borrower: int, waits: list[float], now: float) -> None:
        coming = sum(holding.promised == borrower for holding in self.book.values())
        wanted = max(1, len(self._shards[borrower].replicas) // MOST_SHARE) - coming
        for lender in sorted(range(len(waits)), key=self._load):
            if lender == borrower or waits[lender] > 0.0:
                continue
            for replica_id in self._spare(lender, now)[: max(0, wanted)]:
                self._promise(replica_id, borrower)
                wanted -= 1

    def _give_back(self, now: float) -> None:
        """Loans return when their own shard has a queue, or their borrower has none any more."""
        for shard, scheduler in enumerate(self._shards):
            lent = [
                name for name, h in self.book.items() if h.holder == shard and h.lent and h.promised is None
            ]
            calm = [] if scheduler.waiting else self._spare(shard, now)
            for replica_id in lent:
                holding = self.book[replica_id]
                over = now - holding.since >= LOAN_SECONDS and replica_id in calm
                if self._shards[holding.home].waiting or over:
                    self._promise(replica_id, holding.home)

    def _spare(self, shard: int, now: float) -> list[str]:
        """Replicas the shard can do without, the idlest first; a shard keeps one at least."""
        scheduler = self._shards[shard]
        names = [name for name in scheduler.replicas if self.book[name].promised is None]
        names.sort(key=lambda name: (not self.book[name].lent, len(scheduler.outstanding(name)), name))
        sizes = {name: scheduler.slots(name) for name in names}
        work = sum(len(scheduler.outstanding(name)) for name in scheduler.replicas)
        kept, spare = sum(sizes.values()), list[str]()
        for name in names[:-1]:
            kept -= sizes[name]
            if work > LENT_LOAD * kept:
                break
            if now - self.book[name].since >= LOAN_SECONDS or not self.book[name].lent:
                spare.append(name)
        return spare

    def _load(self, shard: int) -> tuple[float, int]:
        scheduler = self._shards[shard]
        slots = sum(scheduler.slots(name) for name in scheduler.replicas)
        work = sum(len(scheduler.outstanding(name)) for name in scheduler.replicas)
        return (work / slots if slots else 1.0, shard)

    def _promise(self, replica_id: str, shard: int) -> None:
        holding = self.book[replica_id]
        holding.promised = shard
        self._shards[holding.holder].reserve_replica(replica_id, reserved=True)

    def _hand_over(self, now: float) -> None:
        for replica_id, holding in self.book.items():
            if holding.promised is None:
                continue
            if holding.promised != holding.home and not self._shards[holding.promised].waiting:
                holding.promised = None  # it is not needed any more
                self._shards[holding.holder].reserve_replica(replica_id, reserved=False)
                continue
            view = self._shards[holding.holder].release_replica(replica_id)
            if view is not None:
                self._shards[holding.promised].adopt_replica(view)
                holding.holder, holding.promised = holding.promised, None
                holding.epoch += 1
                holding.since = now
