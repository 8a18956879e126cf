"""Who is served next in the cluster: class, then fair shares between tenants, then slack.

Three orders are reconciled by nesting them. Classes come first. Within a class the tenant that
was served the fewest tokens for its weight goes first (see `tenants`), and only among a tenant's
own tickets the least slack, the optimal order for one queue (Liu and Layland, "Scheduling
Algorithms for Multiprogramming", JACM 1973): so nobody gains by naming a short deadline at the
cost of another tenant. Two exceptions bound what nesting does harm: a ticket that was admitted
with a deadline and is about to miss it goes first in its class, as far as its tenant is not much
ahead of the others, and pays for it in its counter; and one in four is the oldest of all.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from heapq import heappop, heappush

from easel.scheduler.request import Priority
from easel.scheduler.tenants import Account, TenantLedger

OLDEST_SHARE = 4  # one ticket in this many is the longest waiting one, whatever its priority
PATIENCE_SECONDS = 30.0  # slack that a ticket without a deadline arrives with
RESCUE_SHARE = 0.25  # of a deadline: with less slack than that a ticket goes before fair shares
RESCUE_TICKETS = 16  # tokens of so many tickets like it its tenant may be ahead for that


@dataclass(frozen=True, slots=True)
class AdmissionTicket:
    """What the central scheduler needs to know of a request in order to place it."""

    request_id: str
    prompt_tokens: int
    max_tokens: int  # still to generate, at most
    page_hashes: tuple[bytes, ...] = ()  # names of the prefix's full pages, from `page_chain`
    tenant: str = ""
    priority: int = 0  # lower is sooner
    excluded: frozenset[str] = frozenset()  # replicas to be tried again only if no other has room
    deadline_seconds: float | None = None  # from now on: the whole answer should be there by then
    lease_epoch: int = 0  # of its last placement; the next one's is higher, whatever clocks say
    admitted: bool = False  # it has run before and lost its replica: never refused, charged only once
    traceparent: str = ""  # W3C trace context of the request; "": it is not traced

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.max_tokens


@dataclass(slots=True)
class Demand:
    """Tokens that wait to be served."""

    prompt: float = 0.0
    output: float = 0.0  # at most

    def add(self, ticket: AdmissionTicket, times: float = 1.0) -> None:
        self.prompt += times * ticket.prompt_tokens
        self.output += times * ticket.max_tokens

    def add_all(self, other: "Demand", times: float = 1.0) -> None:
        self.prompt += times * other.prompt
        self.output += times * other.output

    @property
    def tokens(self) -> float:
        return self.prompt + self.output


@dataclass(slots=True)
class Waiting:
    """A ticket in the room."""

    ticket: AdmissionTicket
    order: int  # of arrival
    arrived: float
    latest_start: float  # its deadline less its own service; slack is this less the time now

    @property
    def key(self) -> tuple[float, int]:
        return (self.latest_start, self.order)

    @property
    def deadline(self) -> float | None:
        """When the answer should be there; None: at no certain time."""
        seconds = self.ticket.deadline_seconds
        return None if seconds is None else self.arrived + seconds

    def urgent(self, now: float) -> bool:
        seconds = self.ticket.deadline_seconds
        return seconds is not None and self.latest_start - now <= RESCUE_SHARE * seconds


@dataclass(slots=True)
class _Line:
    """One tenant's tickets of one class."""

    account: Account
    arrivals: OrderedDict[str, Waiting] = field(default_factory=OrderedDict[str, Waiting])
    by_slack: list[tuple[tuple[float, int], Waiting]] = field(
        default_factory=list[tuple[tuple[float, int], Waiting]]
    )
    demand: Demand = field(default_factory=Demand)

    def add(self, waiting: Waiting) -> None:
        self.arrivals[waiting.ticket.request_id] = waiting
        insort(self.by_slack, (waiting.key, waiting))
        self.demand.add(waiting.ticket)

    def remove(self, waiting: Waiting) -> None:
        del self.arrivals[waiting.ticket.request_id]
        del self.by_slack[bisect_left(self.by_slack, (waiting.key,))]
        self.demand.add(waiting.ticket, -1.0)

    def first(self, passing: Set[str]) -> Waiting | None:
        if not passing:
            return self.by_slack[0][1]
        return next((w for _, w in self.by_slack if w.ticket.request_id not in passing), None)

    def oldest(self, passing: Set[str]) -> Waiting | None:
        return next((w for w in self.arrivals.values() if w.ticket.request_id not in passing), None)


class WaitingRoom:
    """Tickets that are not placed yet. Its size is the caller's to limit.

    Serving one costs O(tenants that wait), adding and removing one O(log n) and a short copy.
    """

    def __init__(self, ledger: TenantLedger | None = None) -> None:
        self._ledger = ledger if ledger is not None else TenantLedger()
        self._waiting: dict[str, Waiting] = {}
        self._classes: dict[int, dict[str, _Line]] = {}
        self._deadlines: list[tuple[float, int, str]] = []  # a heap: latest start, order, id
        self._level = 0.0  # counter of the tenant whose turn it was last
        self._arrived = 0
        self._served = 0
        self.demand = Demand()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def push(self, ticket: AdmissionTicket, now: float = 0.0, latest_start: float | None = None) -> None:
        """Adds a ticket whose id is not in the room."""
        if not self._waits(ticket.tenant):
            self._ledger.lift(ticket.tenant, self._level)
        start = now + PATIENCE_SECONDS if latest_start is None else latest_start
        waiting = Waiting(ticket, self._arrived, now, start)
        self._arrived += 1
        self._waiting[ticket.request_id] = waiting
        lines = self._classes.setdefault(ticket.priority, {})
        if ticket.tenant not in lines:
            lines[ticket.tenant] = _Line(self._ledger.account(ticket.tenant))
        lines[ticket.tenant].add(waiting)
        self.demand.add(ticket)
        if latest_start is not None and not ticket.admitted:
            heappush(self._deadlines, (start, waiting.order, ticket.request_id))

    def discard(self, request_id: str) -> None:
        """Removes a ticket if it is here."""
        waiting = self._waiting.pop(request_id, None)
        if waiting is None:
            return
        ticket = waiting.ticket
        lines = self._classes[ticket.priority]
        line = lines[ticket.tenant]
        line.remove(waiting)
        self.demand.add(ticket, -1.0)
        if not line.arrivals:
            del lines[ticket.tenant]
            if not lines:
                del self._classes[ticket.priority]

    def head(self, passing: Set[str], now: float = 0.0, latest: Priority = Priority.BATCH) -> Waiting | None:
        """The ticket to serve next.

        Left out are the ids in `passing`, classes later than `latest` and tenants that run all they may.
        """
        if latest is Priority.BATCH:
            classes = sorted(self._classes)
        else:
            classes = [priority for priority in sorted(self._classes) if priority <= latest]
        if self._served % OLDEST_SHARE == OLDEST_SHARE - 1:
            oldest = self._oldest(classes, passing)
            if oldest is not None:
                return oldest
        for priority in classes:
            fairest = self._fairest(priority, passing, now)
            if fairest is not None:
                return fairest
        return None

    def serve(self, ticket: AdmissionTicket) -> None:
        """Takes a ticket out; its turn is over."""
        self.discard(ticket.request_id)
        self._served += 1

    def late(self, now: float) -> list[Waiting]:
        """Takes out the tickets that cannot be answered in time any more."""
        found: list[Waiting] = []
        while self._deadlines and self._deadlines[0][0] < now:
            _, order, request_id = heappop(self._deadlines)
            waiting = self._waiting.get(request_id)
            if waiting is not None and waiting.order == order:
                self.discard(request_id)
                found.append(waiting)
        return found

    def least_slack(self, now: float) -> float | None:
        """Seconds until the first of those with a deadline becomes urgent; None: there are none."""
        while self._deadlines:
            start, order, request_id = self._deadlines[0]
            waiting = self._waiting.get(request_id)
            if waiting is not None and waiting.order == order:
                return start - now - RESCUE_SHARE * (waiting.ticket.deadline_seconds or 0.0)
            heappop(self._deadlines)
        return None

    def ahead_of(self, ticket: AdmissionTicket, latest_start: float) -> Demand:
        """What would be served before the ticket if it came now and nobody after it.

        Of another tenant in its class that is at most what keeps that tenant's counter level.
        """
        ahead, own = Demand(), Demand()
        for priority, lines in self._classes.items():
            if priority < ticket.priority:
                for line in lines.values():
                    ahead.add_all(line.demand)
        lines = self._classes.get(ticket.priority, {})
        if ticket.tenant in lines:
            for key, waiting in lines[ticket.tenant].by_slack:
                if key > (latest_start, self._arrived):
                    break
                own.add(waiting.ticket)
        account = self._ledger.account(ticket.tenant)
        served = account.served if self._waits(ticket.tenant) else max(account.served, self._level)
        mine = served + (own.tokens + ticket.tokens) / account.limits.weight
        for tenant, line in lines.items():
            if tenant != ticket.tenant:
                level = (mine - line.account.served) * line.account.limits.weight
                ahead.add_all(line.demand, min(1.0, max(0.0, level) / max(1.0, line.demand.tokens)))
        ahead.add_all(own)
        share = OLDEST_SHARE / (OLDEST_SHARE - 1.0)
        return Demand(
            min(self.demand.prompt, share * ahead.prompt), min(self.demand.output, share * ahead.output)
        )

    def behind(self, ticket: AdmissionTicket, latest_start: float) -> Iterator[Waiting]:
        """The tenant's own tickets that would be served after this one."""
        line = self._classes.get(ticket.priority, {}).get(ticket.tenant)
        if line is not None:
            for _, waiting in line.by_slack[bisect_left(line.by_slack, ((latest_start, self._arrived),)) :]:
                yield waiting

    def _waits(self, tenant: str) -> bool:
        return any(tenant in lines for lines in self._classes.values())

    def _oldest(self, classes: Iterable[int], passing: Set[str]) -> Waiting | None:
        there = [
            waiting
            for priority in classes
            for line in self._classes[priority].values()
            if line.account.may_run and (waiting := line.oldest(passing)) is not None
        ]
        return min(there, key=lambda waiting: waiting.order, default=None)

    def _fairest(self, priority: int, passing: Set[str], now: float) -> Waiting | None:
        there = [
            (line.account.served, waiting.order, waiting, line.account.limits.weight)
            for line in self._classes[priority].values()
            if line.account.may_run and (waiting := line.first(passing)) is not None
        ]
        if not there:
            return None
        least, _, fairest, _ = min(there)
        self._level = least
        urgent = [
            waiting
            for served, _, waiting, weight in there
            if waiting.urgent(now) and (served - least) * weight <= RESCUE_TICKETS * waiting.ticket.tokens
        ]
        return min(urgent, key=lambda waiting: waiting.key, default=fairest)
