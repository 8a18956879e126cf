"""Where the journal is, how long it remembers, and how both are spoken of without secrets."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Where the journal is and how long it remembers."""

    url: str = field(repr=False)  # redis://, rediss:// or unix://; may hold a user and a password
    prefix: str = "easel:"
    lease_seconds: float = 15.0
    active_seconds: float = 21_600.0
    terminal_seconds: float = 600.0
    timeout_seconds: float = 0.5  # of one exchange with Redis
    retry_seconds: float = 2.0  # how long an unreachable Redis is left alone
    flush_seconds: float = 0.03  # between two write-behind pipelines
    buffer_records: int = 20_000  # kept while Redis is away
    tls_ca: Path | None = None  # of a rediss:// server; None: the system's
    tls_cert: Path | None = None
    tls_key: Path | None = None


def place_of(url: str) -> str:
    """The URL without user, password and options."""
    scheme, separator, rest = url.partition("?")[0].partition("://")
    if "@" in rest:
        rest = "…@" + rest.rpartition("@")[2]
    return scheme + separator + rest if separator else "…"


def ms(seconds: float) -> int:
    return round(seconds * 1000)
