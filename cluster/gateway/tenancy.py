"""Tenants as they are configured, and the terms under which one of their requests runs."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request as HttpRequest

from easel.cluster.config_sections import TenantSection
from easel.cluster.errors import ConfigError
from easel.cluster.gateway.errors import InvalidField, shown
from easel.cluster.gateway.settings import GatewaySettings, Tenant
from easel.scheduler.request import Priority

DEADLINE_HEADER: Final = "x-easel-deadline-ms"
PRIORITY_HEADER: Final = "x-easel-priority"
MAX_DEADLINE_MS: Final = 86_400_000  # a day
_KEY_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Terms:
    """Who asks, how urgently, and by when."""

    tenant: str
    priority: Priority
    deadline_seconds: float | None  # from now on; None: whenever


def tenants_of(sections: Sequence[TenantSection]) -> tuple[Tenant, ...]:
    """The configured tenants. Raises ConfigError for a hash that is none, or a name or hash used twice."""
    tenants = tuple(_tenant(section) for section in sections)
    _refuse_twice("name", [tenant.name for tenant in tenants])
    _refuse_twice("key hash", [key_hash for tenant in tenants for key_hash in tenant.key_hashes])
    return tenants


def terms_of(http: HttpRequest, settings: GatewaySettings) -> Terms:
    """What the headers ask for, within what the tenant may; the tenant's and the server's defaults else.

    Raises InvalidField, which names the header.
    """
    name: str = http.state.tenant
    tenant = next((tenant for tenant in settings.tenants if tenant.name == name), None)
    own = tenant.priority if tenant is not None else Priority.STANDARD
    # Where nobody needs a key there is nobody to be protected from.
    soonest = own if settings.asks_for_keys else min(Priority)
    deadline = _deadline_ms(_header(http, DEADLINE_HEADER))
    if deadline is None and tenant is not None:
        deadline = tenant.deadline_ms
    if deadline is None:
        deadline = settings.deadline_ms
    return Terms(
        tenant=name,
        priority=_priority(_header(http, PRIORITY_HEADER), own, soonest),
        deadline_seconds=None if deadline is None else deadline / 1000,
    )


def _tenant(section: TenantSection) -> Tenant:
    hashes = tuple(key_hash.lower() for key_hash in section.key_hashes)
    for key_hash in hashes:
        if not _KEY_HASH.fullmatch(key_hash):
            # The value may be a key that somebody forgot to hash: it is not repeated.
            problem = "a key hash is not 64 hexadecimal digits; `easel key` makes a key and its hash."
            raise ConfigError(f"tenants: {section.name}", problem)
    return Tenant(section.name, hashes, Priority[section.priority.upper()], section.deadline_ms)


def _refuse_twice(what: str, values: Sequence[str]) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            raise ConfigError("tenants", f"the {what} {value} is there {count} times; once is enough.")


def _header(http: HttpRequest, name: str) -> str | None:
    values = http.headers.getlist(name)
    if len(values) > 1:
        raise InvalidField(name, f"is given {len(values)} times; once is enough.")
    return values[0].strip() if values else None


def _deadline_ms(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_DEADLINE_MS))
    if not digits or not 1 <= int(text) <= MAX_DEADLINE_MS:
        problem = f"is {shown(text)}; it must be a whole number of milliseconds from 1 to {MAX_DEADLINE_MS}."
        raise InvalidField(DEADLINE_HEADER, problem)
    return int(text)


def _priority(text: str | None, own: Priority, soonest: Priority) -> Priority:
    if text is None:
        return own
    allowed = [priority for priority in sorted(Priority) if priority >= soonest]
    asked = next((priority for priority in allowed if priority.name.lower() == text.lower()), None)
    if asked is None:
        names = ", ".join(priority.name.lower() for priority in allowed)
        raise InvalidField(PRIORITY_HEADER, f"is {shown(text)}; this key may ask for {names}.")
    return asked
