"""When requests arrive: a closed loop of clients, or an open loop that waits for nobody's answer.

An open loop is what a crowd of users is; a closed one slows down with the server and so hides how slow
it is (Schroeder, Wierman, Harchol-Balter: Open Versus Closed, NSDI 2006).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from math import sqrt
from pathlib import Path
from random import Random
from typing import Protocol

from easel.bench.harness.errors import WrongOption
from easel.bench.harness.numbers import number_of, values_of
from easel.scheduler.errors import SchedulerError
from easel.scheduler.trace import RequestTrace, read_trace

OPTION = "--arrivals"


class OpenLoop(Protocol):
    """Arrivals that depend on the clock alone."""

    def times(self, rng: Random) -> Iterator[float]:
        """Seconds since the load began, never decreasing."""
        ...


@dataclass(frozen=True, slots=True)
class Closed:
    """So many clients, each with one request under way."""

    clients: int


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals; the gaps between them are exponential."""

    rate: float  # a second

    def times(self, rng: Random) -> Iterator[float]:
        return accumulate(rng.expovariate(self.rate) for _ in repeat(None))


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gaps of a gamma distribution: bursts below shape 1, Poisson at 1, ever more even above it.

    Their standard deviation is 1 / √shape of their mean.
    """

    rate: float  # a second
    shape: float

    def times(self, rng: Random) -> Iterator[float]:
        scale = 1.0 / (self.rate * self.shape)
        return accumulate(rng.gammavariate(self.shape, scale) for _ in repeat(None))


@dataclass(frozen=True, slots=True)
class Ramp:
    """A Poisson process whose rate goes from one to another and stays there.

    Drawn by inverting the expected count, a·t + (b - a)·t² / 2T (Lewis and Shedler 1979).
    """

    begin: float  # a second
    end: float
    seconds: float

    def times(self, rng: Random) -> Iterator[float]:
        return map(self._when, accumulate(rng.expovariate(1.0) for _ in repeat(None)))

    def _when(self, count: float) -> float:
        """When so many arrivals are expected."""
        at_the_top = (self.begin + self.end) / 2 * self.seconds
        if count >= at_the_top:
            return self.seconds + (count - at_the_top) / self.end
        slope = (self.end - self.begin) / self.seconds
        # The root of slope/2 t² + begin t - count, in the form that bears a slope of 0.
        return 2.0 * count / (self.begin + sqrt(self.begin**2 + 2.0 * slope * count))


@dataclass(frozen=True, slots=True)
class Replay:
    """The arrivals of a recorded trace, `speed` times as fast."""

    requests: tuple[RequestTrace, ...]
    speed: float = 1.0

    def times(self, rng: Random) -> Iterator[float]:
        first = self.requests[0].arrival
        return ((request.arrival - first) / self.speed for request in self.requests)


Arrivals = Closed | Poisson | Gamma | Ramp | Replay


def parse_arrivals(text: str) -> Arrivals:
    """closed:CLIENTS, poisson:RATE, gamma:RATE:SHAPE, ramp:FROM:TO:SECONDS or replay:FILE[:SPEED].

    Raises WrongOption.
    """
    match text.partition(":")[0]:
        case "closed":
            (clients,) = values_of(OPTION, text, ("clients",))
            if clients < 1 or clients != int(clients):
                raise WrongOption(OPTION, f"{clients:g} clients; it must be a whole number.")
            return Closed(int(clients))
        case "poisson":
            return Poisson(*values_of(OPTION, text, ("rate",)))
        case "gamma":
            return Gamma(*values_of(OPTION, text, ("rate", "shape")))
        case "ramp":
            return Ramp(*values_of(OPTION, text, ("from", "to", "seconds")))
        case "replay":
            return _replay(text.split(":")[1:])
        case _:
            raise WrongOption(OPTION, f"{text!r} must begin with closed, poisson, gamma, ramp or replay.")


def _replay(parts: Sequence[str]) -> Replay:
    if len(parts) not in {1, 2} or not parts[0]:
        raise WrongOption(OPTION, "replay must have the form replay:FILE or replay:FILE:SPEED.")
    speed = number_of(OPTION, parts[1], "speed") if len(parts) == 2 else 1.0
    try:
        with Path(parts[0]).open(encoding="utf-8") as lines:
            return Replay(read_trace(lines).requests, speed)
    except (OSError, SchedulerError) as error:
        raise WrongOption(OPTION, f"{parts[0]}: {error}") from error
