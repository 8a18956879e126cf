"""What the scheduler has just refused is refused again at once, by the gateway alone.

When many more ask than can be served, most of the work of refusing is finding out that it must be:
a prompt is tokenised, an answer begun, the scheduler asked. That takes processor time from those
who are served. For a moment after a refusal, whoever asks for as much or more under the same terms
is told the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from easel.cluster.gateway.tenancy import Terms
from easel.scheduler.errors import DeadlineImpossible, QueueFull, Refused
from easel.scheduler.request import Priority

HOLD_SECONDS = 0.1
_Key = tuple[str, Priority] | None  # None: whoever asks


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was asked for, and the answer."""

    error: Refused
    until: float  # of the clock
    deadline_seconds: float
    max_tokens: float


class RecentRefusals:
    """One gateway's. The clock is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latest: dict[_Key, Refusal] = {}

    def note(self, error: Refused, terms: Terms, max_tokens: int | None) -> None:
        """The scheduler refused a request of these terms. A tenant's own limits are not remembered."""
        key: _Key
        match error:
            case QueueFull():
                key = None
            case DeadlineImpossible():
                key = (terms.tenant, terms.priority)
            case _:
                return
        until = self._clock() + HOLD_SECONDS
        self._latest[key] = Refusal(error, until, _deadline(terms), _tokens(max_tokens))

    def check(self, terms: Terms, max_tokens: int | None) -> None:
        """Raises the error of a moment ago if what it refused was no more than this."""
        now = self._clock()
        self._latest = {key: refusal for key, refusal in self._latest.items() if refusal.until > now}
        full = self._latest.get(None)
        if full is not None:
            raise full.error.with_traceback(None)
        late = self._latest.get((terms.tenant, terms.priority))
        if late is None:
            return
        if _deadline(terms) <= late.deadline_seconds and _tokens(max_tokens) >= late.max_tokens:
            raise late.error.with_traceback(None)


def _deadline(terms: Terms) -> float:
    return inf if terms.deadline_seconds is None else terms.deadline_seconds


def _tokens(max_tokens: int | None) -> float:
    return inf if max_tokens is None else max_tokens
