"""What waiting and serving in the cluster will come to, and how wrong such predictions have been."""

from dataclasses import dataclass, field
from math import ceil

from easel.scheduler.admission import AdmissionTicket, Demand
from easel.scheduler.fleet import Capacity
from easel.scheduler.placement import Choice, Outstanding, ReplicaView
from easel.scheduler.totals import RunningMean

MEMORY = 0.95  # about the last 20 requests
HALF_LIFE_SECONDS = 30.0  # of a bad experience: else nothing would be admitted that could correct it
WIDTH = 3.0  # mean deviations: 2.4 standard ones, were errors normal, so that one in a hundred exceeds it
MOST_MARGIN = 3.0


@dataclass(slots=True)
class Spread:
    """Running mean, and mean absolute deviation from it."""

    mean: RunningMean = field(default_factory=lambda: RunningMean(MEMORY))
    deviation: RunningMean = field(default_factory=lambda: RunningMean(MEMORY))

    def add(self, value: float) -> None:
        if not self.mean.empty:
            self.deviation.add(abs(value - self.mean.value))
        self.mean.add(value)

    @property
    def high(self) -> float:
        """A value that few exceed."""
        return self.mean.value + WIDTH * self.deviation.value


class Outlook:
    """Learns from requests that end: how long they are, and how far their predictions were off."""

    def __init__(self) -> None:
        self.error = RunningMean(MEMORY)  # of |predicted - actual| seconds from placement to the end
        self._share = Spread()  # output tokens / max_tokens
        self._ratio = Spread()  # actual / predicted seconds to the end
        self._learned_at = 0.0

    def learn(self, request: Outstanding, output_tokens: int | None, now: float) -> None:
        """A request has ended; None: at an unknown length. One that ran elsewhere too teaches nothing."""
        if output_tokens is None or request.max_tokens <= 0 or request.resumed:
            return
        self._share.add(min(1.0, output_tokens / request.max_tokens))
        service = request.finish_seconds - request.wait_seconds
        predicted = request.wait_seconds + service * output_tokens / request.output_tokens
        actual = now - request.assigned_at
        if predicted > 0.0 and output_tokens > 0:
            self.error.add(abs(predicted - actual))
            self._ratio.add(actual / predicted)
            self._learned_at = now

    def margin(self, now: float) -> float:
        """How many times its prediction a promise has to allow for; from 1 to MOST_MARGIN."""
        excess = max(0.0, self._ratio.high - 1.0)
        fading: float = 0.5 ** (max(0.0, now - self._learned_at) / HALF_LIFE_SECONDS)
        return min(MOST_MARGIN, 1.0 + excess * fading)

    def likely_share(self, capacity: Capacity) -> float:
        """Expected output tokens / max_tokens."""
        if not self._share.mean.empty:
            return self._share.mean.value
        return capacity.output_share if capacity.output_share > 0.0 else 1.0

    def cautious_share(self) -> float:
        """Output tokens / max_tokens that few answers exceed; all of it until some have ended."""
        return 1.0 if self._share.deviation.empty else min(1.0, self._share.high)

    def cautious_seconds(self, choice: Choice, share: float, now: float) -> float:
        """Seconds to the end that few requests exceed; the choice was made for `share` of max_tokens."""
        service = choice.finish_seconds - choice.wait_seconds
        return self.margin(now) * (choice.wait_seconds + service * self.cautious_share() / share)

    def wait_seconds(self, ahead: Demand, tickets: int, capacity: Capacity) -> float:
        """Upper bound of the seconds until a slot is free, behind so many tickets of such demand.

        While anybody waits all slots are busy, so all that is ahead is served by all of them:
        it takes at most its sum over their number (Graham, "Bounds for Certain Multiprocessing
        Anomalies", Bell System Technical Journal 1966).
        """
        if capacity.slots == 0 or tickets < capacity.free:
            return 0.0
        return (capacity.left_seconds + self.room_seconds(ahead, capacity)) / capacity.slots

    def room_seconds(self, demand: Demand, capacity: Capacity) -> float:
        """Seconds of one slot that a demand is expected to take."""
        output = demand.output * self.likely_share(capacity)
        return output * capacity.token_seconds + demand.prompt * capacity.prompt_seconds

    def service_seconds(self, ticket: AdmissionTicket, view: ReplicaView, cached_tokens: int) -> float:
        """Seconds the request would take on a replica that is full but has a slot for it."""
        digest, cost = view.digest, view.digest.cost
        output = max(1.0, ticket.max_tokens * self.cautious_share())
        context = ticket.prompt_tokens + 0.5 * output
        measured = view.token_seconds * digest.block_length / view.steps_per_block
        step = max(view.step_seconds(digest.slots, context), measured)
        uncached = max(0, ticket.prompt_tokens - cached_tokens)
        prefill = uncached * (cost.per_token + step / max(1, view.policy.refresh_tokens))
        prefill += uncached * ticket.prompt_tokens * cost.per_pair
        return prefill + ceil(output / digest.block_length) * view.steps_per_block * step
