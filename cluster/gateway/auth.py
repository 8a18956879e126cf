"""API keys: who may use /v1, and which tenant a key stands for."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from easel.cluster.gateway.error_answers import response_of
from easel.cluster.gateway.errors import InvalidApiKey

PROTECTED = "/v1/"
TENANT_CHARACTERS = 16


class AuthMiddleware:
    """Answers 401 before a body is read. Without configured keys everyone is the one tenant "".

    Health, readiness and metrics stay open: probes and scrapers carry no key.
    """

    def __init__(self, app: ASGIApp, api_keys: Sequence[str]) -> None:
        self.app = app
        self._keys = tuple(key.encode() for key in api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        tenant = ""
        if self._keys and scope["path"].startswith(PROTECTED):
            given = _bearer(Headers(scope=scope).get("authorization", ""))
            if not self._is_known(given):
                await response_of(InvalidApiKey(bool(given)))(scope, receive, send)
                return
            tenant = tenant_of(given)
        scope.setdefault("state", {})["tenant"] = tenant
        await self.app(scope, receive, send)

    def _is_known(self, given: bytes) -> bool:
        """Compares with every key in full, so that timing tells nothing about any of them."""
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        return any(matches)


def tenant_of(key: bytes) -> str:
    """A stable name that does not reveal the key."""
    return hashlib.sha256(key).hexdigest()[:TENANT_CHARACTERS]


def _bearer(header: str) -> bytes:
    scheme, _, credentials = header.partition(" ")
    return credentials.strip().encode() if scheme.lower() == "bearer" else b""
