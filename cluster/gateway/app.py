"""Builds the HTTP application: routes, middleware, errors."""

from fastapi import FastAPI

from easel.cluster.gateway.auth import AuthMiddleware
from easel.cluster.gateway.backend import Backend
from easel.cluster.gateway.body_limit import BodyLimitMiddleware
from easel.cluster.gateway.chat import chat_router
from easel.cluster.gateway.completions import completions_router
from easel.cluster.gateway.error_answers import install_error_handlers
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.metrics import GatewayMetrics, MetricsMiddleware
from easel.cluster.gateway.models import models_router
from easel.cluster.gateway.operations import operations_router
from easel.cluster.gateway.settings import GatewaySettings, Sources, system_sources
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.worker.model_info import ModelInfo

PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/ready", "/metrics"})


def build_gateway(
    backend: Backend,
    model: ModelInfo,
    tokenizer: ChatTokenizer,
    settings: GatewaySettings | None = None,
    sources: Sources | None = None,
) -> FastAPI:
    """The gateway as an ASGI application. It starts nothing and owns no connection but its clients'."""
    settings = settings or GatewaySettings()
    sources = sources or system_sources()
    metrics = GatewayMetrics(sources.clock, model.block_length)
    gateway = Gateway(backend, model, tokenizer, settings, sources, metrics)
    app = FastAPI(title="Easel", redoc_url=None)
    for build in (chat_router, completions_router, models_router, operations_router):
        app.include_router(build(gateway))
    install_error_handlers(app, settings.retry_after_seconds)
    # The last added is the outermost: everything is counted, keys come before bodies.
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    app.add_middleware(AuthMiddleware, api_keys=settings.api_keys)
    app.add_middleware(MetricsMiddleware, metrics=metrics, paths=PATHS)
    return app
