"""API keys: who may use /v1, and which tenant a key stands for."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from easel.cluster.gateway.error_answers import response_of
from easel.cluster.gateway.errors import InvalidApiKey
from easel.cluster.gateway.settings import Tenant

PROTECTED = ("/v1/", "/cluster")
TENANT_CHARACTERS = 16


class AuthMiddleware:
    """Answers 401 before a body is read. Without configured keys everyone is the one tenant "".

    Keeps hashes of keys only. Health, readiness and metrics stay open: probes and scrapers carry no key.
    """

    def __init__(self, app: ASGIApp, api_keys: Sequence[str] = (), tenants: Sequence[Tenant] = ()) -> None:
        """A key of `api_keys` is a tenant of its own, whose name `tenant_of` makes from the key."""
        self.app = app
        named = [(bytes.fromhex(known), tenant.name) for tenant in tenants for known in tenant.key_hashes]
        unnamed = [(_digest(key.encode()), tenant_of(key.encode())) for key in api_keys]
        self._tenants = (*named, *unnamed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        tenant: str | None = ""
        if self._tenants and scope["path"].startswith(PROTECTED):
            given = _bearer(Headers(scope=scope).get("authorization", ""))
            tenant = self._tenant(given)
            if tenant is None:
                await response_of(InvalidApiKey(bool(given)))(scope, receive, send)
                return
        scope.setdefault("state", {})["tenant"] = tenant
        await self.app(scope, receive, send)

    def _tenant(self, given: bytes) -> str | None:
        """Compares with every hash in full, so that timing tells nothing about any of them."""
        digest = _digest(given)
        matches = [name for known, name in self._tenants if hmac.compare_digest(digest, known)]
        return matches[0] if matches and given else None


def hash_of_key(key: str) -> str:
    """What a configuration keeps of a key: its SHA-256, in hexadecimal."""
    return _digest(key.encode()).hex()


def tenant_of(key: bytes) -> str:
    """A stable name that does not reveal the key."""
    return _digest(key).hex()[:TENANT_CHARACTERS]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _bearer(header: str) -> bytes:
    scheme, _, credentials = header.partition(" ")
    # Headers are decoded as Latin-1, byte by byte, whatever the client wrote in them.
    return credentials.strip(" \t").encode("latin-1") if scheme.lower() == "bearer" else b""
