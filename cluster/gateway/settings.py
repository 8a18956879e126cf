"""What a gateway is told once, at start: its limits, and where time and chance come from."""

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from easel.scheduler.request import MAX_SEED, Priority


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who may ask: a name for a set of API keys, of which only hashes are kept."""

    name: str  # shown in metrics and logs; salts the prefix cache
    key_hashes: tuple[str, ...] = field(repr=False)  # SHA-256, 64 lower-case hexadecimal digits each
    priority: Priority = Priority.STANDARD  # the soonest class its requests may have
    deadline_ms: int | None = None  # of requests that name none


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits of the HTTP edge. Neither `api_keys` nor `tenants` means that no key is asked for."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)  # each a tenant of its own, without a name
    tenants: tuple[Tenant, ...] = ()
    deadline_ms: int | None = None  # of requests that name none, and whose tenant has none
    max_body_bytes: int = 4 * 1024 * 1024
    max_depth: int = 32  # objects and lists within each other, in a body
    body_seconds: float = 30.0  # a body that takes longer to arrive is refused
    max_header_bytes: int = 16 * 1024  # names and values
    max_choices: int = 64  # prompts × n of one HTTP request
    stream_buffer: int = 64  # blocks kept for a client that reads slowly
    retry_after_seconds: float = 1.0  # advice to a client when no replica can take its request

    @property
    def asks_for_keys(self) -> bool:
        """Whether /v1 needs a key."""
        return bool(self.api_keys or self.tenants)


@dataclass(frozen=True, slots=True)
class Sources:
    """Clocks and random sources, injected so that tests can fix them."""

    clock: Callable[[], float]  # seconds, monotonic
    wall: Callable[[], float]  # seconds since the Unix epoch
    new_id: Callable[[], str]
    new_seed: Callable[[], int]  # in [0, MAX_SEED]


def system_sources() -> Sources:
    """The machine's clocks and its random device."""
    return Sources(
        clock=time.monotonic,
        wall=time.time,
        new_id=lambda: uuid.uuid4().hex,
        new_seed=lambda: secrets.randbelow(MAX_SEED + 1),
    )
