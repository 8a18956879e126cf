"""GET / and /ui/…: the web page, its files, and what it has to know of the model. No API key is asked for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from types import MappingProxyType

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.statistics import Json

INDEX = "index.html"
QUESTIONS = "questions.json"
MODEL = "model.json"
MEDIA_TYPES = MappingProxyType(
    {
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "svg": "image/svg+xml",
        "json": "application/json",
    }
)
# Nothing but the page's own files and the gateway's own routes; no script or style within the markup, and no
# way from a string to markup.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = MappingProxyType(
    {
        "Cache-Control": "no-cache",  # kept, but asked for again: a gateway of another version may answer
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
)


@dataclass(frozen=True, slots=True)
class Page:
    """One file as it is sent."""

    body: bytes
    media_type: str
    etag: str  # strong: the same bytes, and only those, have it

    @classmethod
    def of(cls, name: str, body: bytes) -> "Page":
        """The type is told by the name's ending."""
        return cls(body, MEDIA_TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def response(self, known_etags: str) -> Response:
        """The file, or 304 where the client's `If-None-Match` names it."""
        headers = {**HEADERS, "ETag": self.etag}
        if self.etag in (tag.strip().removeprefix("W/") for tag in known_etags.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)


def pages_router(gateway: Gateway) -> APIRouter:
    """The routes; files are read once, here."""
    router = APIRouter(include_in_schema=False)
    pages = {name: Page.of(name, body) for name, body in _bodies(gateway).items()}

    @router.api_route("/", methods=["GET", "HEAD"], response_model=None)
    async def index(http: Request) -> Response:
        """The page itself."""
        return pages[INDEX].response(http.headers.get("if-none-match", ""))

    @router.api_route("/ui/{name}", methods=["GET", "HEAD"], response_model=None)
    async def file(name: str, http: Request) -> Response:
        """A script, a style sheet, a picture, the questions, or the model's options."""
        if name not in pages:
            raise HTTPException(404)
        return pages[name].response(http.headers.get("if-none-match", ""))

    return router


def _bodies(gateway: Gateway) -> Mapping[str, bytes]:
    folder = files("easel.cluster.gateway") / "web"
    bodies = {file.name: file.read_bytes() for file in folder.iterdir() if _is_sent(file.name)}
    bodies[QUESTIONS] = (files("easel.demo") / QUESTIONS).read_bytes()
    bodies[MODEL] = json.dumps(_model(gateway)).encode()
    return bodies


def _is_sent(name: str) -> bool:
    """`package.json`, which tells Node of what kind the modules are, stays here."""
    return name.rpartition(".")[2] in MEDIA_TYPES and name != "package.json"


def _model(gateway: Gateway) -> Json:
    """What the page's sliders begin with. `/health` names the model without a key, too."""
    model = gateway.model
    defaults = {
        name: value for name, value in asdict(model.diffusion).items() if name in model.family.options
    }
    return {
        "model": model.name,
        "family": model.family.name,
        "block_length": model.block_length,
        "max_model_len": model.max_model_tokens,
        "temperature": model.temperature,
        "defaults": defaults,  # of the request's `diffusion` object, by field
        "asks_for_keys": gateway.settings.asks_for_keys,
    }
