"""Figures of a trace, recorded or simulated: throughput, latencies, goodput, steadiness."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil, inf, isfinite, sqrt

from easel.scheduler.trace import RequestTrace


@dataclass(frozen=True, slots=True)
class Slo:
    """What a client is promised, in seconds."""

    first_block: float = inf  # after arrival
    gap: float = inf  # between blocks

    def kept(self, request: RequestTrace) -> bool:
        return request.first_block_seconds <= self.first_block and max(request.gaps, default=0.0) <= self.gap


@dataclass(frozen=True, slots=True)
class Summary:
    """Seconds unless a name says otherwise. Latencies are of requests that arrived in the window."""

    requests: int
    tokens_per_second: float  # of blocks that arrived in the window
    first_block_p50: float
    first_block_p99: float
    gap_p50: float
    gap_p99: float
    finish_p50: float  # arrival to end
    finish_p99: float
    kept_share: float  # of requests, the promise
    goodput: float  # tokens a second of requests whose promise was kept

    def figure(self, name: str) -> float:
        """A field by its name."""
        return float(asdict(self)[name])


def summarise(
    requests: Sequence[RequestTrace], slo: Slo | None = None, *, since: float = 0.0, until: float = inf
) -> Summary:
    """Figures of the window [since, until); by default until the last block."""
    slo = slo if slo is not None else Slo()
    end = until if isfinite(until) else max((request.finish for request in requests), default=since)
    arrived = [request for request in requests if since <= request.arrival < until]
    kept = [request for request in arrived if slo.kept(request)]
    tokens = _tokens_between(requests, since, end)
    seconds = max(end - since, 1e-9)
    first = [request.first_block_seconds for request in arrived]
    gaps = [gap for request in arrived for gap in request.gaps]
    finish = [request.seconds for request in arrived]
    return Summary(
        requests=len(arrived),
        tokens_per_second=tokens / seconds,
        first_block_p50=percentile(first, 0.50),
        first_block_p99=percentile(first, 0.99),
        gap_p50=percentile(gaps, 0.50),
        gap_p99=percentile(gaps, 0.99),
        finish_p50=percentile(finish, 0.50),
        finish_p99=percentile(finish, 0.99),
        kept_share=len(kept) / max(1, len(arrived)),
        goodput=_tokens_between(kept, since, end) / seconds,
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0


def variation(values: Sequence[float]) -> float:
    """Coefficient of variation: standard deviation / mean; 0 of none."""
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / len(values)) / mean if mean else 0.0


def _tokens_between(requests: Iterable[RequestTrace], since: float, until: float) -> int:
    return sum(block.tokens for request in requests for block in request.blocks if since <= block.at <= until)
