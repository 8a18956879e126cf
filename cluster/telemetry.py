"""What a process sets up so that others can see what it does: its log and its traces."""

from dataclasses import dataclass, field

from easel.cluster.config_sections import TelemetrySection
from easel.cluster.log_format import LogOrigin, configure_logging
from easel.cluster.tracing import Tracing, start_tracing


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Of one process. The default one is silent."""

    section: TelemetrySection = field(default_factory=TelemetrySection)
    tracing: Tracing = field(default_factory=Tracing)

    def stop(self) -> None:
        """Export what is left; takes a moment, and more only where the collector is away."""
        self.tracing.stop()


def start_telemetry(section: TelemetrySection | None, process: str, instance: str) -> Telemetry:
    """Log as the settings say, and trace where they name a collector. None: neither, as in tests.

    `process` is gateway, scheduler, worker or serve; `instance` tells it from others of its kind.
    Raises ConfigError.
    """
    if section is None:
        return Telemetry()
    configure_logging(section, LogOrigin(process, instance))
    return Telemetry(section, start_tracing(section, process, instance))
