"""Who is served next in the cluster: priority, then fair shares between tenants, then arrival.

Shares follow virtual token counters (Sheng et al., "Fairness in Serving Large Language Models",
OSDI 2024): the tenant that was served the fewest tokens goes first, and a tenant that comes
back after a pause is lifted to the others' level, so that idling earns no credit.
"""

from collections import OrderedDict
from collections.abc import Set
from dataclasses import dataclass

COUNTERS_KEPT = 1024  # of tenants that do not wait; beyond that all of them start level
OLDEST_SHARE = 4  # one ticket in this many is the longest waiting one, whatever its priority


@dataclass(frozen=True, slots=True)
class AdmissionTicket:
    """What the central scheduler needs to know of a request in order to place it."""

    request_id: str
    prompt_tokens: int
    max_tokens: int  # still to generate, at most
    page_hashes: tuple[bytes, ...] = ()  # names of the prefix's full pages, from `page_chain`
    tenant: str = ""
    priority: int = 0  # lower is sooner
    excluded: frozenset[str] = frozenset()  # replicas not to be tried again
    deadline_seconds: float | None = None  # from now on: the whole answer should be there by then
    admitted: bool = False  # it has run before and lost its replica: never refused, charged only once

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.max_tokens


class WaitingRoom:
    """Tickets that are not placed yet. Its size is the caller's to limit."""

    def __init__(self) -> None:
        self._tickets: OrderedDict[str, AdmissionTicket] = OrderedDict()
        self._lines: dict[int, dict[str, OrderedDict[str, AdmissionTicket]]] = {}
        self.served_tokens: dict[str, int] = {}  # by tenant; the counters
        self._floor = 0  # counter of the tenant that was served last
        self._served = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._tickets

    def push(self, ticket: AdmissionTicket) -> None:
        """Adds a ticket whose id is not in the room."""
        if not any(ticket.tenant in tenants for tenants in self._lines.values()):
            self.served_tokens[ticket.tenant] = max(self.served_tokens.get(ticket.tenant, 0), self._floor)
        self._tickets[ticket.request_id] = ticket
        tenants = self._lines.setdefault(ticket.priority, {})
        tenants.setdefault(ticket.tenant, OrderedDict())[ticket.request_id] = ticket

    def discard(self, request_id: str) -> None:
        """Removes a ticket if it is here."""
        ticket = self._tickets.pop(request_id, None)
        if ticket is None:
            return
        tenants = self._lines[ticket.priority]
        line = tenants[ticket.tenant]
        del line[request_id]
        if not line:
            del tenants[ticket.tenant]
            if not tenants:
                del self._lines[ticket.priority]

    def head(self, passing: Set[str]) -> AdmissionTicket | None:
        """The ticket to serve next, leaving out the ids in `passing`."""
        if self._served % OLDEST_SHARE == OLDEST_SHARE - 1:
            return _first(self._tickets, passing)
        for priority in sorted(self._lines):
            heads = [_first(line, passing) for line in self._lines[priority].values()]
            there = [ticket for ticket in heads if ticket is not None]
            if there:
                return min(there, key=lambda ticket: self.served_tokens[ticket.tenant])
        return None

    def serve(self, ticket: AdmissionTicket) -> None:
        """Takes a ticket out and charges its tenant."""
        self.discard(ticket.request_id)
        self._served += 1
        self._floor = max(self._floor, self.served_tokens[ticket.tenant])
        self.served_tokens[ticket.tenant] += ticket.tokens
        if len(self.served_tokens) > 2 * len(self._tickets) + COUNTERS_KEPT:
            waiting = {ticket.tenant for ticket in self._tickets.values()}
            self.served_tokens = {tenant: self.served_tokens[tenant] for tenant in waiting}


def _first(line: OrderedDict[str, AdmissionTicket], passing: Set[str]) -> AdmissionTicket | None:
    return next((ticket for request_id, ticket in line.items() if request_id not in passing), None)
