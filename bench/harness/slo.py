"""What a client is promised, and how much of the load kept it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite

from easel.bench.harness.errors import WrongOption
from easel.bench.harness.numbers import number_of
from easel.bench.harness.records import Record

OPTION = "--slo"
NAMES = {"ttfb": "first_block", "gap": "gap", "e2e": "whole"}


@dataclass(frozen=True, slots=True)
class Slo:
    """Seconds that may pass. All must be kept by each request on its own."""

    first_block: float = inf  # from when it was due
    gap: float = inf  # the longest between two of its blocks
    whole: float = inf

    def kept(self, record: Record) -> bool:
        """A request that was not answered has kept nothing."""
        return (
            record.answered
            and record.first_block_seconds <= self.first_block
            and max(record.gaps, default=0.0) <= self.gap
            and record.seconds <= self.whole
        )

    def __str__(self) -> str:
        bounds = asdict(self)
        return ", ".join(
            f"{short}={bounds[name]:g}" for short, name in NAMES.items() if isfinite(bounds[name])
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Goodput: the share of all requests, refused and failed ones among them, that kept the promise."""

    slo: str
    wanted: float  # share
    share: float
    requests_per_second: float  # that kept it

    @property
    def met(self) -> bool:
        return self.share >= self.wanted


def parse_slo(text: str) -> Slo:
    """ttfb=SECONDS, gap=SECONDS and e2e=SECONDS, separated by commas. Raises WrongOption."""
    bounds: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = part.partition("=")
        if name not in NAMES:
            raise WrongOption(
                OPTION, f"{part!r} must be one of {', '.join(f'{key}=SECONDS' for key in NAMES)}."
            )
        bounds[NAMES[name]] = number_of(OPTION, value, name)
    return Slo(**bounds)


def judge(records: Sequence[Record], slo: Slo, wanted: float, seconds: float) -> Verdict:
    """Goodput of a load that took so long."""
    kept = sum(map(slo.kept, records))
    return Verdict(str(slo), wanted, kept / max(1, len(records)), kept / max(seconds, 1e-9))
