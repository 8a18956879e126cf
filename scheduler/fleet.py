"""The replicas the central scheduler knows: what is on each, and which may take more.

A digest costs what changed in it, a decision a bounded number of replicas: with many of them a
few are compared, those with the request's prefix and a random sample of those with room. A
sample of two already comes close to the best of all (Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", IEEE TPDS 2001).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import ReplicaDigest
from easel.scheduler.placement import Choice, Outstanding, ReplicaView, choose, class_of
from easel.scheduler.prefix_index import PrefixIndex
from easel.scheduler.request import Priority

COMPARED_ALL = 16  # replicas: up to so many are all compared
SAMPLED = 6  # of those with room
PREFIX_SAMPLED = 4  # of those with a beginning of the prompt
CAPACITY_SECONDS = 0.1  # so old may sums over many replicas be


@dataclass(slots=True)
class Capacity:
    """What the replicas that are heard can do together."""

    at: float
    slots: int = 0
    free: int = 0  # slots without a request
    left_seconds: float = 0.0  # of one slot: what is under way
    token_seconds: float = 0.0  # of one slot: an output token, mean over slots
    prompt_seconds: float = 0.0  # of one slot: a prompt token
    output_share: float = 0.0  # mean of the replicas' own figures


@dataclass(slots=True)
class NameSet:
    """A set of names, in no order, that can be drawn from."""

    names: list[str] = field(default_factory=list[str])
    _places: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, name: str) -> None:
        if name not in self._places:
            self._places[name] = len(self.names)
            self.names.append(name)

    def discard(self, name: str) -> None:
        place = self._places.pop(name, None)
        if place is None:
            return
        last = self.names.pop()
        if last != name:
            self.names[place] = last
            self._places[last] = place


class Fleet:
    """Owner of all ReplicaViews. Which of them are silent depends on the time it is asked at."""

    def __init__(self, queue_ahead: int, timeout_seconds: float, index_pages: int, draw: Random) -> None:
        self.views: dict[str, ReplicaView] = {}
        self.index = PrefixIndex(index_pages)
        self._queue_ahead = queue_ahead
        self._timeout = timeout_seconds
        self._draw = draw
        self._open = {priority: NameSet() for priority in Priority}  # replicas with room for the class
        self._latest: dict[str, Priority | None] = {}  # class that each has room for
        self._capacity: Capacity | None = None

    def latest_open(self) -> Priority | None:
        """The latest class that any replica, heard or not, may take one more request of.

        There is room for all sooner ones too. None: there is none for anybody.
        """
        return max((priority for priority, there in self._open.items() if there.names), default=None)

    def hear(self, digest: ReplicaDigest, now: float) -> tuple[ReplicaView, tuple[str, ...]] | None:
        """Takes a report; returns its view and the ids listed before, or None if it is out of date."""
        view = self.views.get(digest.replica_id)
        if view is None:
            view = self.views[digest.replica_id] = ReplicaView(digest, now)
            self._capacity = None
            listed: tuple[str, ...] = ()
        elif digest.sequence <= view.digest.sequence and not self.silent(view, now):
            return None
        else:
            listed = view.digest.active
            view.take(digest, now)
            if len(self.views) <= COMPARED_ALL:
                self._capacity = None
        self.changed(view)
        return view, listed

    def slots_of(self, replica_id: str) -> int:
        view = self.views.get(replica_id)
        return 0 if view is None else view.digest.slots

    def remove(self, replica_id: str) -> ReplicaView | None:
        view = self.views.pop(replica_id, None)
        if view is not None:
            self.index.forget(replica_id)
            self._note(replica_id, None)
            self._latest.pop(replica_id, None)
            self._capacity = None
        return view

    def insert(self, view: ReplicaView) -> None:
        """Takes over a replica that another fleet removed."""
        self.views[view.replica_id] = view
        self._capacity = None
        self.changed(view)

    def add(self, view: ReplicaView, request_id: str, request: Outstanding) -> None:
        free = view.free
        view.add(request_id, request)
        self._adjust(view, view.free - free, request.output_tokens)
        self.changed(view)

    def take_away(self, replica_id: str, request_id: str, now: float) -> Outstanding:
        view = self.views[replica_id]
        free = view.free
        request = view.remove(request_id, now)
        self._adjust(view, view.free - free, 0.0)
        self.changed(view)
        return request

    def news(
        self, view: ReplicaView, listed: tuple[str, ...], grace: float, now: float
    ) -> tuple[list[str], list[str]]:
        """Compares a view's digest with the ids `listed` before.

        Returns the ids that were not sent there, and those that are gone: no longer listed, or
        sent more than `grace` seconds ago and never listed.
        """
        if not view.unseen and view.digest.active == listed:
            return [], []
        before, here = set(listed), set(view.digest.active)
        new = [name for name in view.digest.active if name not in before and name not in view.outstanding]
        gone = [
            name
            for name in listed
            if name not in here and name in view.outstanding and name not in view.unseen
        ]
        for request_id, request in list(view.unseen.items()):
            if request_id in here:
                view.saw(request_id)
            elif now - request.assigned_at >= grace:
                gone.append(request_id)
        return new, gone

    def changed(self, view: ReplicaView) -> None:
        """Has to follow every change of what a view has room for."""
        self._note(view.replica_id, view.latest_open(self._queue_ahead))

    def silent(self, view: ReplicaView, now: float) -> bool:
        return now - view.seen_at > self._timeout

    def heard(self, now: float) -> Iterator[ReplicaView]:
        return (view for view in self.views.values() if not self.silent(view, now))

    def best(
        self, ticket: AdmissionTicket, output_share: float, now: float, seconds_left: float | None = None
    ) -> Choice | None:
        """Where the request is predicted to finish first, of the replicas that are compared."""
        chain, there = ticket.page_hashes, self._open[class_of(ticket)].names
        if len(there) <= COMPARED_ALL:
            names = there
        else:
            # With replacement: it is cheaper, and twins among many are rare.
            sampled = self._draw.choices(there, k=SAMPLED)
            names = list(dict.fromkeys(self.index.holders(chain, PREFIX_SAMPLED) + sampled))
        cached = self.index.cached_pages(chain, names)
        views = [self.views[name] for name in names]
        heard = [view for view in views if now - view.seen_at <= self._timeout]
        return choose(ticket, heard, cached, self._queue_ahead, output_share, seconds_left, now)

    def sample(self, now: float) -> list[ReplicaView]:
        """Some replicas that are heard, busy or not; all of them while they are few."""
        names = list(self.views) if len(self.views) <= COMPARED_ALL else self._some()
        views = [self.views[name] for name in names]
        return [view for view in views if not self.silent(view, now) and not view.closed]

    def capacity(self, now: float) -> Capacity:
        """Sums over the replicas that are heard.

        With many of them their digests count up to CAPACITY_SECONDS late, what is sent counts at once.
        """
        known = self._capacity
        if known is None or now - known.at > CAPACITY_SECONDS:
            known = self._capacity = self._sum(now)
        return known

    def _adjust(self, view: ReplicaView, freed: int, output_tokens: float) -> None:
        if self._capacity is not None:
            self._capacity.free += freed
            self._capacity.left_seconds += output_tokens * view.token_seconds

    def _some(self) -> list[str]:
        names = list(self.views)
        return list(dict.fromkeys(self._draw.choices(names, k=SAMPLED)))

    def _sum(self, now: float) -> Capacity:
        total = Capacity(now)
        for view in self.heard(now):
            if view.closed:
                continue
            slots = view.digest.slots
            total.slots += slots
            total.free += view.free
            total.left_seconds += view.left_seconds()
            total.token_seconds += slots * view.token_seconds
            total.prompt_seconds += slots * view.prompt_seconds
            total.output_share += slots * view.digest.output_share
        if total.slots:
            total.token_seconds /= total.slots
            total.prompt_seconds /= total.slots
            total.output_share /= total.slots
        return total

    def _note(self, replica_id: str, latest: Priority | None) -> None:
        if latest is self._latest.get(replica_id):
            return
        self._latest[replica_id] = latest
        for priority, there in self._open.items():
            if latest is not None and priority <= latest:
                there.add(replica_id)
            else:
                there.discard(replica_id)
