"""Whether the generator itself kept up: a saturated one makes any server look slow."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from easel.bench.harness.records import Record
from easel.scheduler.sim_report import percentile

BUSY = 0.8  # of one core; above it, times are the generator's own
LATE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class GeneratorLoad:
    """What the harness's one process took."""

    cpu_share: float  # of one core; 1.0 is all that it can use
    late_p99_seconds: float  # requests were sent so much after they were due

    @property
    def saturated(self) -> bool:
        return self.cpu_share > BUSY or self.late_p99_seconds > LATE_SECONDS


@dataclass(slots=True)
class CpuWatch:
    """Counts this process's processor time from when it is made."""

    _cpu: float = field(default_factory=time.process_time)
    _wall: float = field(default_factory=time.perf_counter)

    def share(self) -> float:
        """Processor seconds a second, so far."""
        wall = time.perf_counter() - self._wall
        return (time.process_time() - self._cpu) / max(wall, 1e-9)


def generator_load(watch: CpuWatch, records: Sequence[Record]) -> GeneratorLoad:
    """Of the load that has just ended."""
    late = percentile((record.late_seconds for record in records), 0.99)
    return GeneratorLoad(round(watch.share(), 4), round(max(0.0, late), 6))
