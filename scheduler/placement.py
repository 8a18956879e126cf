"""Which replica a request goes to: the one that is predicted to finish it first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.messages import PhasePolicy, ReplicaDigest
from easel.scheduler.page_needs import pages_needed
from easel.scheduler.pledges import Pledges
from easel.scheduler.request import Priority

DEFAULT_STEPS_PER_BLOCK = 8.0  # until a replica has finished a block
_CLASSES = tuple(Priority)  # soonest first
_SOONEST = int(Priority.INTERACTIVE)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A request is to run on a replica."""

    request_id: str
    replica_id: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A replica for a request, and when it would have finished it there."""

    view: "ReplicaView"
    cached_pages: int
    wait_seconds: float  # to the first canvas
    finish_seconds: float


@dataclass(slots=True)
class Outstanding:
    """A request that was sent to a replica, or found there."""

    assigned_at: float
    prefill_tokens: int = 0  # not cached there, as predicted
    pages: int = 0
    seen: bool = False  # a digest has listed it
    prompt_tokens: int = 0
    max_tokens: int = 0  # 0: not known here
    resumed: bool = False  # a part of its tokens was made elsewhere
    output_tokens: float = 0.0  # it was predicted to take; 0: not known
    wait_seconds: float = 0.0  # predicted from the assignment to the first canvas
    finish_seconds: float = 0.0  # predicted from the assignment to the end
    priority: Priority = Priority.INTERACTIVE  # of an unknown class: it counts against everybody
    deadline: float | None = None  # it was promised for
    cautious_seconds: float = 0.0  # predicted from the assignment to the end, with a margin


@dataclass(slots=True)
class ReplicaView:
    """A replica as the central scheduler sees it. Sums over what is outstanding are kept, not made."""

    digest: ReplicaDigest
    seen_at: float
    outstanding: dict[str, Outstanding] = field(default_factory=dict[str, Outstanding])
    unseen: dict[str, Outstanding] = field(default_factory=dict[str, Outstanding])  # no digest listed them
    classes: list[int] = field(default_factory=lambda: [0] * len(Priority))  # outstanding, soonest first
    unseen_prefill: int = 0  # tokens
    unseen_pages: int = 0
    unseen_output: float = 0.0  # tokens
    pledges: Pledges = field(default_factory=Pledges)
    policy: PhasePolicy = field(default_factory=PhasePolicy)  # what it was told last
    draining: bool = False  # it is to give back all it has
    reserved: bool = False  # it is to become idle
    work_seconds: float = 0.0  # of one slot: what the digest's requests are predicted to take, together
    token_seconds: float = 0.0  # of one slot: what an output token takes with all slots busy
    prompt_seconds: float = 0.0  # of one slot: what a prompt token takes of them all

    def __post_init__(self) -> None:
        self.take(self.digest, self.seen_at)

    def take(self, digest: ReplicaDigest, now: float) -> None:
        """Replaces the digest by a later one; what it lists is the caller's to compare."""
        self.digest, self.seen_at = digest, now
        step = self._full_step_seconds()
        self.token_seconds = self.steps_per_block * step / digest.block_length
        self.prompt_seconds = digest.cost.per_token * digest.slots
        steps = digest.blocks_left * self.steps_per_block + digest.steps_left
        if steps <= 0.0 and self.outstanding:
            # The replica does not say; on average half of each is left.
            known = sum(request.output_tokens for request in self.outstanding.values() if request.seen)
            self.work_seconds = 0.5 * known * self.token_seconds
        else:
            self.work_seconds = steps * step
        self.work_seconds += digest.waiting_prefill_tokens * self.prompt_seconds

    @property
    def replica_id(self) -> str:
        return self.digest.replica_id

    @property
    def free(self) -> int:
        """Slots for which there is no request yet."""
        return 0 if self.closed else max(0, self.digest.slots - len(self.outstanding))

    @property
    def closed(self) -> bool:
        """Whether nothing more is to be sent here."""
        return self.draining or self.reserved or self.digest.draining

    @property
    def steps_per_block(self) -> float:
        return self.digest.steps_per_block or DEFAULT_STEPS_PER_BLOCK

    def add(self, request_id: str, request: Outstanding) -> None:
        now = request.assigned_at
        self.pledges.stretch(self.slowdown, now)
        if request.deadline is not None:
            self.pledges.add(request_id, request.deadline, now + request.cautious_seconds)
        self.outstanding[request_id] = request
        self.classes[request.priority - _SOONEST] += 1
        if not request.seen:
            self.unseen[request_id] = request
            self._count(request, 1)

    def saw(self, request_id: str) -> None:
        """A digest lists the request, so the replica's own figures contain it."""
        request = self.unseen.pop(request_id, None)
        if request is not None:
            request.seen = True
            self._count(request, -1)

    def remove(self, request_id: str, now: float) -> Outstanding:
        self.saw(request_id)
        request = self.outstanding.pop(request_id)
        self.pledges.discard(request_id)
        self.pledges.stretch(1.0 / self.slowdown, now)
        self.classes[request.priority - _SOONEST] -= 1
        return request

    def latest_open(self, queue_ahead: int) -> Priority | None:
        """The latest class of which one more request may be sent; None: not even of the soonest.

        At most `queue_ahead` of its or a sooner class wait here for a slot. Later classes do not
        count, for it goes before them and may take their slots.
        """
        room = self.digest.slots + queue_ahead
        if self.closed:
            return None
        if len(self.outstanding) < room:
            return Priority.BATCH
        if self.classes[0] + self.classes[1] < room:
            return Priority.STANDARD
        return Priority.INTERACTIVE if self.classes[0] < room else None

    @property
    def slowdown(self) -> float:
        """How many times as long steps take with one more request here."""
        canvases = len(self.outstanding)
        if not self.pledges.of or canvases >= self.digest.slots:
            return 1.0
        context = self._context()
        return self.step_seconds(canvases + 1, context) / self.step_seconds(canvases, context)

    def keeps_pledges(self, now: float) -> bool:
        """Whether everybody here who was promised a time would still be in time with one request more."""
        return not self.pledges.of or self.pledges.endure(self.slowdown, now)

    def pages_for(self, ticket: AdmissionTicket) -> int:
        """Pages the request may come to need, none of them cached."""
        digest = self.digest
        return pages_needed(
            digest.layout, ticket.prompt_tokens, ticket.max_tokens, digest.block_length, digest.page_size
        )

    def step_seconds(self, canvases: int, context: float) -> float:
        """Predicted seconds of a step in which that many canvases see `context` positions each."""
        cost, queries = self.digest.cost, canvases * self.digest.block_length
        return cost.constant + queries * (cost.per_token + cost.per_head_row + cost.per_pair * context)

    def left_seconds(self) -> float:
        """Seconds of one slot that all outstanding requests are predicted to take, together."""
        unseen = self.unseen_output * self.token_seconds + self.unseen_prefill * self.prompt_seconds
        return self.work_seconds + unseen

    def predict(
        self, ticket: AdmissionTicket, cached_pages: int, pages: int, output_tokens: float
    ) -> tuple[float, float]:
        """Seconds to the request's first canvas and to its end, if it were sent here now.

        It needs `pages`, of which the first `cached_pages` are there. Prefill shares its steps with
        the canvases: of each step only the policy's quota is refresh.
        """
        digest, cost, present = self.digest, self.digest.cost, len(self.outstanding)
        uncached = max(0, ticket.prompt_tokens - cached_pages * digest.page_size)
        context = ticket.prompt_tokens + 0.5 * output_tokens
        step = self.step_seconds(min(present + 1, digest.slots), context)
        ahead = digest.waiting_prefill_tokens + self.unseen_prefill
        refresh = (ahead + uncached) * (cost.per_token + step / max(1, self.policy.refresh_tokens))
        prefill = refresh + uncached * ticket.prompt_tokens * cost.per_pair
        service = ceil(output_tokens / digest.block_length) * self.steps_per_block * step
        wait = prefill + self._queueing(pages - cached_pages, service)
        return wait, wait + service

    def _queueing(self, wanted_pages: int, service: float) -> float:
        """Seconds until there is a slot, and pages, for one more request."""
        digest, queued = self.digest, len(self.outstanding) + 1 - self.digest.slots
        short = max(0, wanted_pages + self.unseen_pages - digest.pages_available) / digest.pages
        if queued <= 0:
            return short * service
        told = digest.blocks_left + digest.steps_left > 0.0
        slot = self.left_seconds() / digest.slots if told else queued / digest.slots * service
        return max(short * service, slot)

    def _full_step_seconds(self) -> float:
        """Seconds of a step with all slots busy: as predicted, or as measured if that is more.

        What was measured has refresh work in it, but says little while few canvases run.
        """
        digest = self.digest
        predicted = self.step_seconds(digest.slots, self._context())
        busy = digest.slots_used >= digest.slots
        return max(predicted, digest.step_seconds) if busy else predicted

    def _context(self) -> float:
        """Positions that a canvas sees, on average."""
        digest = self.digest
        used = (digest.pages - digest.pages_available) * digest.page_size
        return used / digest.slots_used if digest.slots_used else 0.0

    def _count(self, request: Outstanding, sign: int) -> None:
        self.unseen_prefill += sign * request.prefill_tokens
        self.unseen_pages += sign * request.pages
        self.unseen_output += sign * request.output_tokens


def class_of(ticket: AdmissionTicket) -> Priority:
    """The class that its number belongs to; numbers beyond the first and last class are theirs."""
    return _CLASSES[min(max(ticket.priority - _SOONEST, 0), len(_CLASSES) - 1)]


def choose(
    ticket: AdmissionTicket,
    views: Iterable[ReplicaView],
    cached_pages: Mapping[str, int],
    queue_ahead: int,
    output_share: float = 1.0,
    seconds_left: float | None = None,
    now: float = 0.0,
) -> Choice | None:
    """The replica with the earliest predicted finish among those that may take the request.

    `output_share` is how much of `max_tokens` an answer is expected to take. Prefill that a
    cached prefix saves counts twice, since it delays others as well; unless what is left of
    the deadline can only be met elsewhere. Where it would make somebody late who was promised a time
    it is not sent, unless it was admitted before. A replica that the ticket excludes is better than none:
    it may have been given up in error, and with all of them excluded nobody else would ever come.
    """
    output, priority = max(1.0, ticket.max_tokens * output_share), class_of(ticket)
    needed: dict[tuple[str, int, int], int] = {}  # pages, by all that decides it
    best: tuple[bool, bool, float, int, str] | None = None
    chosen: Choice | None = None
    for view in views:
        digest = view.digest
        latest = view.latest_open(queue_ahead)
        if latest is None or latest < priority:
            continue
        if not ticket.admitted and not view.keeps_pledges(now):
            continue
        kind = (digest.layout, digest.block_length, digest.page_size)
        if kind not in needed:
            needed[kind] = view.pages_for(ticket)
        if needed[kind] > digest.pages:
            continue
        cached = cached_pages.get(digest.replica_id, 0)
        wait, finish = view.predict(ticket, cached, needed[kind], output)
        missed = seconds_left is not None and finish > seconds_left
        saved = cached * digest.page_size * digest.cost.per_token
        avoided = digest.replica_id in ticket.excluded
        key = (avoided, missed, finish - saved, len(view.outstanding), digest.replica_id)
        if best is None or key < best:
            best, chosen = key, Choice(view, cached, wait, finish)
    return chosen
