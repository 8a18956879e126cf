"""Builds the HTTP application: routes, middleware, errors."""

from fastapi import FastAPI

from easel.cluster.gateway.answer_drive import AnswerTimes
from easel.cluster.gateway.answer_run import RunParts
from easel.cluster.gateway.answers import Answers
from easel.cluster.gateway.auth import AuthMiddleware
from easel.cluster.gateway.backend import AnswerStore, Backend
from easel.cluster.gateway.body_limit import BodyLimitMiddleware
from easel.cluster.gateway.chat import chat_router
from easel.cluster.gateway.completions import completions_router
from easel.cluster.gateway.error_answers import api_error_of, install_error_handlers
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.metrics import GatewayMetrics, MetricsMiddleware
from easel.cluster.gateway.models import models_router
from easel.cluster.gateway.openapi import install_openapi
from easel.cluster.gateway.operations import operations_router
from easel.cluster.gateway.responses import responses_router
from easel.cluster.gateway.settings import GatewaySettings, Sources, system_sources
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.worker.model_info import ModelInfo


def build_gateway(
    backend: Backend,
    model: ModelInfo,
    tokenizer: ChatTokenizer,
    settings: GatewaySettings | None = None,
    sources: Sources | None = None,
    answers: AnswerStore | None = None,
    times: AnswerTimes | None = None,
) -> FastAPI:
    """The gateway as an ASGI application. It starts nothing and owns no connection but its clients'.

    Without `answers` nothing outlives its connection. With them, `app.state.answers.start()` begins
    the search for background answers that nobody drives, as the first request does too, and
    `await app.state.answers.stop()` leaves those that are driven here to other gateways.
    """
    settings = settings or GatewaySettings()
    sources = sources or system_sources()
    metrics = GatewayMetrics(sources.clock, model.block_length)
    parts = RunParts(
        backend=backend,
        store=answers,
        metrics=metrics,
        times=times or AnswerTimes(),
        wall=sources.wall,
        explain=lambda error: api_error_of(error, settings.retry_after_seconds),
    )
    kept = Answers(parts, tokenizer, settings.stream_buffer)
    gateway = Gateway(backend, model, tokenizer, settings, sources, metrics, kept)
    app = FastAPI(title="Easel", redoc_url=None)
    app.state.answers = kept
    for build in (chat_router, completions_router, responses_router, models_router, operations_router):
        app.include_router(build(gateway))
    install_openapi(app, settings)
    install_error_handlers(app, settings.retry_after_seconds)
    # The last added is the outermost: everything is counted, keys come before bodies.
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        max_depth=settings.max_depth,
        seconds=settings.body_seconds,
        max_header_bytes=settings.max_header_bytes,
    )
    app.add_middleware(AuthMiddleware, api_keys=settings.api_keys, tenants=settings.tenants)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    return app
