"""Which replica a request goes to: the one that is predicted to finish it first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import ReplicaDigest
from easel.scheduler.page_needs import pages_needed

DEFAULT_STEPS_PER_BLOCK = 8.0  # until a replica has finished a block


@dataclass(frozen=True, slots=True)
class Assignment:
    """A request is to run on a replica."""

    request_id: str
    replica_id: str


@dataclass(slots=True)
class Outstanding:
    """A request that was sent to a replica, or found there."""

    assigned_at: float
    prefill_tokens: int = 0  # not cached there, as predicted
    pages: int = 0
    seen: bool = False  # a digest has listed it


@dataclass(slots=True)
class ReplicaView:
    """A replica as the central scheduler sees it."""

    digest: ReplicaDigest
    seen_at: float
    outstanding: dict[str, Outstanding] = field(default_factory=dict[str, Outstanding])

    @property
    def replica_id(self) -> str:
        return self.digest.replica_id

    def has_room(self, queue_ahead: int) -> bool:
        """Whether one more request may be sent: at most `queue_ahead` wait for a slot there."""
        return len(self.outstanding) < self.digest.slots + queue_ahead

    def pages_for(self, ticket: AdmissionTicket) -> int:
        """Pages the request may come to need, none of them cached."""
        digest = self.digest
        return pages_needed(
            digest.layout, ticket.prompt_tokens, ticket.max_tokens, digest.block_length, digest.page_size
        )

    def step_seconds(self, canvases: int, context: int) -> float:
        """Predicted seconds of a step in which that many canvases see `context` positions each."""
        cost, queries = self.digest.cost, canvases * self.digest.block_length
        return cost.constant + queries * (cost.per_token + cost.per_head_row + cost.per_pair * context)

    def service_seconds(self, max_tokens: int, context: int) -> float:
        """Predicted seconds from a request's first canvas to its end, with one more request here."""
        blocks = -(-max_tokens // self.digest.block_length)
        canvases = min(len(self.outstanding) + 1, self.digest.slots)
        steps = self.digest.steps_per_block or DEFAULT_STEPS_PER_BLOCK
        return blocks * steps * self.step_seconds(canvases, context)

    def finish_seconds(self, ticket: AdmissionTicket, cached_tokens: int) -> float:
        """Predicted seconds until the request would be finished here."""
        digest, cost = self.digest, self.digest.cost
        unseen = [request for request in self.outstanding.values() if not request.seen]
        ahead = digest.waiting_prefill_tokens + sum(request.prefill_tokens for request in unseen)
        uncached = max(0, ticket.prompt_tokens - cached_tokens)
        prefill = (ahead + uncached) * cost.per_token + uncached * ticket.prompt_tokens * cost.per_pair
        service = self.service_seconds(ticket.max_tokens, ticket.prompt_tokens + ticket.max_tokens // 2)
        wanted = self.pages_for(ticket) - cached_tokens // digest.page_size
        promised = sum(request.pages for request in unseen)
        short = max(0, wanted + promised - digest.pages_available) / digest.pages
        queued = max(0, len(self.outstanding) + 1 - digest.slots) / digest.slots
        return prefill + service * (1.0 + max(short, queued))


def choose(
    ticket: AdmissionTicket, views: Iterable[ReplicaView], cached_pages: Mapping[str, int], queue_ahead: int
) -> ReplicaView | None:
    """The replica with the earliest predicted finish among those that may take the request."""
    able = [
        view
        for view in views
        if view.replica_id not in ticket.excluded
        and view.has_room(queue_ahead)
        and view.pages_for(ticket) <= view.digest.pages
    ]

    def finish(view: ReplicaView) -> tuple[float, int, str]:
        cached = cached_pages.get(view.replica_id, 0) * view.digest.page_size
        return (view.finish_seconds(ticket, cached), len(view.outstanding), view.replica_id)

    return min(able, key=finish, default=None)
