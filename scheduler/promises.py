"""Whether a deadline can be promised, and until when a request has to start for it to be kept."""

from easel.scheduler.admission import AdmissionTicket, Demand, WaitingRoom
from easel.scheduler.errors import DeadlineImpossible
from easel.scheduler.fleet import Fleet
from easel.scheduler.outlook import Outlook

SHORTEST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 60.0


class Promises:
    """Refuses what is predicted to be late, with a margin for how wrong predictions have been.

    A promise holds against all that comes later in the same or a later class; requests of a
    sooner class may still go first, and whoever is then too late is shed.
    """

    def __init__(self, room: WaitingRoom, fleet: Fleet, outlook: Outlook) -> None:
        self._room = room
        self._fleet = fleet
        self._outlook = outlook
        self.crowded_out = 0  # requests refused for what others do, not for what they ask themselves

    def latest_start(self, ticket: AdmissionTicket, now: float) -> float | None:
        """The time by which the request has to be sent to a replica; None: it has no deadline.

        Raises DeadlineImpossible unless the ticket was admitted before. As long as there is no
        replica at all nothing can be predicted, and nothing is refused.
        """
        deadline = ticket.deadline_seconds
        if deadline is None:
            return None
        service = self._service_seconds(ticket, now)
        start = now + deadline - service
        if ticket.admitted:
            return start
        wait = self._wait_seconds(ticket, start, now)
        at_once = None if wait > 0.0 else self._finish_seconds(ticket, now)
        if at_once is None:
            wait = max(wait, self._relief_seconds(now))
        finish = wait + service if at_once is None else at_once
        if finish > deadline:
            self.crowded_out += wait > 0.0 and service <= deadline
            raise DeadlineImpossible(finish, deadline, within_bounds(finish - deadline))
        if at_once is not None:
            return max(start, now + deadline - at_once)
        self._refuse_to_push_back(ticket, start, wait, now)
        return start

    def mean_service_seconds(self, prompt_tokens: float, max_tokens: float, now: float) -> float:
        """Seconds from a slot to the end of a request of that size."""
        capacity = self._fleet.capacity(now)
        return self._outlook.room_seconds(Demand(prompt_tokens, max_tokens), capacity)

    def drain_seconds(self, now: float) -> float:
        """Seconds until those who wait now can all have been started; bounded for who is to retry."""
        capacity = self._fleet.capacity(now)
        if capacity.slots == 0:
            return LONGEST_RETRY_SECONDS
        work = capacity.left_seconds + self._outlook.room_seconds(self._room.demand, capacity)
        return within_bounds(work / capacity.slots)

    def _service_seconds(self, ticket: AdmissionTicket, now: float) -> float:
        views, margin = self._fleet.sample(now), self._outlook.margin(now)
        cached = self._fleet.index.cached_pages(ticket.page_hashes, [view.replica_id for view in views])
        seconds = [
            self._outlook.service_seconds(
                ticket, view, cached.get(view.replica_id, 0) * view.digest.page_size
            )
            for view in views
        ]
        return margin * min(seconds, default=0.0)

    def _wait_seconds(self, ticket: AdmissionTicket, start: float, now: float) -> float:
        capacity = self._fleet.capacity(now)
        ahead = self._room.ahead_of(ticket, start)
        tickets = len(self._room) if ahead.tokens > 0.0 else 0
        return self._outlook.margin(now) * self._outlook.wait_seconds(ahead, tickets, capacity)

    def _relief_seconds(self, now: float) -> float:
        """Seconds until what is under way is done, all slots sharing it."""
        capacity = self._fleet.capacity(now)
        return self._outlook.margin(now) * capacity.left_seconds / max(1, capacity.slots)

    def _finish_seconds(self, ticket: AdmissionTicket, now: float) -> float | None:
        """Seconds to its end if it is sent to a replica at once; None: there is none that could take it.

        Later ones are not sent there if that made it late, so its replica need not be thought full.
        """
        share = self._outlook.cautious_share()
        choice = self._fleet.best(ticket, share, now, ticket.deadline_seconds)
        return None if choice is None else self._outlook.cautious_seconds(choice, share, now)

    def _refuse_to_push_back(self, ticket: AdmissionTicket, start: float, wait: float, now: float) -> None:
        """The demand test of deadline scheduling: those it would go before must still be in time."""
        if wait <= 0.0:
            return
        capacity, margin = self._fleet.capacity(now), self._outlook.margin(now)
        per_output = margin * capacity.token_seconds * self._outlook.likely_share(capacity) / capacity.slots
        per_prompt = margin * capacity.prompt_seconds / capacity.slots
        begins = now + wait + per_output * ticket.max_tokens + per_prompt * ticket.prompt_tokens
        for other in self._room.behind(ticket, start):
            if other.deadline is not None and begins > other.latest_start:
                late = begins - other.latest_start
                self.crowded_out += 1
                raise DeadlineImpossible(wait + late, ticket.deadline_seconds or 0.0, within_bounds(late))
            begins += per_output * other.ticket.max_tokens + per_prompt * other.ticket.prompt_tokens


def within_bounds(seconds: float) -> float:
    """What a client is told to wait: neither nothing nor for ever."""
    return min(LONGEST_RETRY_SECONDS, max(SHORTEST_RETRY_SECONDS, seconds))
