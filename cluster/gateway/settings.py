"""What a gateway is told once, at start: its limits, and where time and chance come from."""

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from easel.scheduler.request import MAX_SEED


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits of the HTTP edge. Empty `api_keys` means that no key is asked for."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    max_body_bytes: int = 4 * 1024 * 1024
    max_choices: int = 64  # prompts × n of one HTTP request
    retry_after_seconds: float = 1.0  # advice to a client when no replica can take its request


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
